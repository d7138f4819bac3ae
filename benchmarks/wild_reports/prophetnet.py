"""prophetnet: a token's logits depend on how many tokens are in the call, not only on which.

Seen with transformers 5.23.0, in the decoder alone and without a cache: the logits of the first 5
of 8 tokens are not those of the same 5 tokens alone. What the other 3 are makes no difference, that
they are there does. A call with a single token, as with a cache, is right; every call with more is
not, a prefill included.

Cause: in modeling_prophetnet.py, `ProphetNetNgramSelfAttention.get_predict_relative_pos_embeddings`
permutes (batch, ngram, sequence, buckets, heads) by (0, 2, 1, 4, 3) and flattens that, so that rows
come in the order batch, sequence, ngram, heads; the result is viewed as batch, ngram, heads,
sequence. Each row is used for another position and head. `permute(0, 1, 4, 2, 3)` gives that order.

Related: https://github.com/huggingface/transformers/issues/17455 (rows of a batch mixed up there).
"""

import sys

import torch
from transformers import ProphetNetConfig, ProphetNetForCausalLM

torch.manual_seed(0)
config = ProphetNetConfig(
    vocab_size=50,
    hidden_size=32,
    num_decoder_layers=2,
    num_decoder_attention_heads=4,
    decoder_ffn_dim=48,
    max_position_embeddings=64,
    is_decoder=True,
    is_encoder_decoder=False,
    add_cross_attention=False,
    init_std=0.5,
)
model = ProphetNetForCausalLM(config).eval()
ids = torch.randint(3, 50, (1, 8))
other = torch.cat([ids[:, :5], ids[:, 5:].flip(1)], dim=1)
with torch.no_grad():
    long, changed, short = (
        model(some, use_cache=False).logits for some in (ids, other, ids[:, :5])
    )
error, by_content = ((long[:, :5] - some[:, :5]).abs().max().item() for some in (short, changed))
print(f"5 tokens: by {error:.2g} others if 3 more follow; by {by_content:.2g} if those change")
sys.exit(error > 1e-3)
