"""rwkv: a single token for several rows comes out with rows multiplied.

Seen with transformers 5.23.0. With a state and one new token for each of 2 rows, the logits have
shape (2, 2, V) instead of (2, 1, V), and `generate` for 2 rows goes wrong from the second new token
on. One row is right.

Cause: in modeling_rwkv.py, `RwkvSelfAttention.extract_key_value` and `RwkvFeedForward.forward` have
a branch for `hidden.size(1) == 1 and state is not None` in which `shifted` is
`state[..][:, :, layer]`, of shape (B, D). It meets `hidden`, of shape (B, 1, D), and the two
broadcast to (B, B, D). The other branch keeps the middle axis.
"""

import sys

import torch
from transformers import RwkvConfig, RwkvForCausalLM

torch.manual_seed(0)
config = RwkvConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, context_length=64)
model = RwkvForCausalLM(config).eval()
ids = torch.randint(50, (2, 6))
with torch.no_grad():
    first = model(ids[:, :5], use_cache=True)
    last = model(ids[:, 5:], state=first.state, use_cache=True).logits
print(f"1 token for each of 2 rows: logits of shape {tuple(last.shape)}, expected (2, 1, 50)")
sys.exit(last.shape != (2, 1, 50))
