"""reformer: with a cache, LSH attention reads row 0 for every row, and ignores the padding mask.

Seen with transformers 5.23.0. Once a prompt was longer than `lsh_attn_chunk_length`, each token
that follows attends to states of the first row of the batch, whatever its own row is: a row's
logits depend on the row above it. `generate` for several prompts at once is affected. And tokens
that are masked as padding count as seen from the first cached call on, at every length.

Cause, both in modeling_reformer.py, `LSHSelfAttention`. `_get_relevant_hid_states_and_buckets`
takes the row from `batch_size * torch.div(offset, n, rounding_mode="floor")`; `offset` is an
`arange(n)`, so the quotient is always 0. `batch_size * offset` should be what is divided. And
`_attend` applies the attention mask only `if not use_cache`.

Seen beside it, and no fault: in a chunk of its sorted buckets a token of the uncached pass has
other neighbours than the cached one, so the two differ beyond the first chunk for one row, too.
"""

import sys

import torch
from transformers import ReformerConfig, ReformerModelWithLMHead

torch.manual_seed(0)
config = ReformerConfig(
    vocab_size=50,
    hidden_size=32,
    attention_head_size=8,
    num_attention_heads=4,
    feed_forward_size=48,
    attn_layers=["lsh"],
    lsh_attn_chunk_length=8,
    num_buckets=4,
    num_hashes=1,
    hash_seed=0,
    axial_pos_shape=[8, 8],
    axial_pos_embds_dim=[16, 16],
    max_position_embeddings=64,
    is_decoder=True,
    initializer_range=0.5,
)
model = ReformerModelWithLMHead(config).eval()


def last_logits(ids, mask=None):
    """Of the last token (rows, words), after a prompt of all others."""
    said = {} if mask is None else {"attention_mask": mask[:, :-1]}
    past = model(ids[:, :-1], use_cache=True, **said).past_buckets_states
    said = {} if mask is None else {"attention_mask": mask}
    return model(ids[:, -1:], past_buckets_states=past, use_cache=True, **said).logits[:, -1]


with torch.no_grad():
    ids = torch.randint(3, 50, (2, 17))
    together, alone = last_logits(ids), last_logits(ids[1:])
    rows = (together[1] - alone[0]).abs().max().item()
    mask = (torch.arange(7) >= 3).long()[None]
    seen, other = ids[:1, :7], ids[:1, :7].clone()
    other[:, :3] = 3 + (other[:, :3] + 7) % 47
    padding = (last_logits(seen, mask) - last_logits(other, mask)).abs().max().item()
print(
    f"row 1 with a row above it and alone differ by {rows:.2g}; "
    f"with other tokens under the padding mask by {padding:.2g}"
)
sys.exit(max(rows, padding) > 1e-4)
