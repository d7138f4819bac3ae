"""data2vec-text, roberta-prelayernorm and their family: `generate` counts positions from 0.

Seen with transformers 5.23.0. These models number their positions from `padding_idx + 1`. Called
with ids alone, `forward` does so; `generate` passes `position_ids` that begin at 0, also without a
cache. So the ids that `generate` chooses are not the likeliest ones by `forward`: every token gets
the position vector of one `padding_idx + 1` places before it, the first ones those of padding.

Cause: `GenerationMixin.generate` makes `position_ids` for every model whose forward takes them
(`_prepare_position_ids_for_generation`), from the attention mask, and none of these models
overrides that.

The same mistake in another library: https://github.com/huggingface/sentence-transformers/pull/3879
"""

import sys

import torch
from transformers import RobertaConfig, RobertaForCausalLM

torch.manual_seed(0)
config = RobertaConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=64,
    is_decoder=True,
    initializer_range=0.5,
    eos_token_id=None,
)
model = RobertaForCausalLM(config).eval()
ids = torch.randint(3, 50, (1, 6))
found = model.generate(ids, max_new_tokens=10, do_sample=False, use_cache=False)
with torch.no_grad():
    likeliest = model(found, use_cache=False).logits.argmax(-1)
wrong = (likeliest[:, 5:-1] != found[:, 6:]).sum().item()
print(f"{wrong} of 10 generated ids are not the likeliest by `forward` on the same ids")
sys.exit(wrong > 0)
