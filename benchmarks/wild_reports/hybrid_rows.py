"""falcon_h1, zaya, inkling, zamba2: `batch_select_indices` moves keys and values, not the states.

Seen with transformers 5.23.0. After `past_key_values.batch_select_indices(rows)` the attention half
of a hybrid layer holds other rows than its convolution and recurrent states: an error where the
number of rows changes, another row's states where it does not.

Cause: in cache_utils.py, `LinearAttentionAndFullAttentionLayer` and
`LinearAttentionAndSlidingWindowAttentionLayer` override `reorder_cache`, `crop` and `reset` for
both of their halves; `batch_select_indices` and `batch_repeat_interleave` come from `DynamicLayer`.
"""

import sys

import torch
from transformers import FalconH1Config, FalconH1ForCausalLM

torch.manual_seed(0)
config = FalconH1Config(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    mamba_d_ssm=32,
    mamba_n_heads=4,
    mamba_d_head=8,
    mamba_d_state=8,
    mamba_chunk_size=8,
    initializer_range=0.5,
)
model = FalconH1ForCausalLM(config).eval()
ids = torch.randint(50, (2, 6))
rows = torch.tensor([1, 0])
with torch.no_grad():
    plain = model(ids[rows], use_cache=False).logits
    past = model(ids[:, :5], use_cache=True).past_key_values
    past.batch_select_indices(rows)
    last = model(ids[rows, 5:], past_key_values=past, use_cache=True).logits
error = (last - plain[:, 5:]).abs().max().item()
print(f"rows swapped, then 1 token: logits differ by {error:.2g}; they spread by {plain.std():.2g}")
sys.exit(error > 1e-4)
