"""minimax: `reorder_cache` moves keys and values, not the states of the linear attention.

Seen with transformers 5.23.0. After `past_key_values.reorder_cache(rows)`, as a beam search does it
for every token, the layers with full attention hold other rows than those with linear attention.

Cause: in modeling_minimax.py, `MiniMaxCache` keeps the states in `linear_cache` beside the layers,
and overrides `batch_repeat_interleave`, `batch_select_indices` and `crop`. `reorder_cache` is
`Cache.reorder_cache`, which goes through `layers` only. `batch_select_indices` is right here; with
full attention in the last layer it raises IndexError, as `linear_cache` is then too short.

Known for other models, whose states were kept elsewhere:
https://github.com/huggingface/transformers/issues/46612
"""

import sys

import torch
from transformers import MiniMaxConfig, MiniMaxForCausalLM

torch.manual_seed(0)
config = MiniMaxConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    layer_types=["full_attention", "linear_attention"],
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    num_local_experts=2,
    block_size=8,
    initializer_range=0.5,
)
model = MiniMaxForCausalLM(config).eval()
ids = torch.randint(3, 50, (2, 6))
rows = torch.tensor([1, 0])
errors = {}
with torch.no_grad():
    plain = model(ids[rows], use_cache=False).logits
    for method in ("reorder_cache", "batch_select_indices"):
        past = model(ids[:, :5], use_cache=True).past_key_values
        getattr(past, method)(rows)
        last = model(ids[rows, 5:], past_key_values=past, use_cache=True).logits
        errors[method] = (last - plain[:, 5:]).abs().max().item()
said = ", ".join(f"by {error:.2g} after {method}" for method, error in errors.items())
print(f"rows swapped, then 1 token: the logits differ {said}")
sys.exit(max(errors.values()) > 1e-3)
