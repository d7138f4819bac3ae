"""bamba: without `position_ids`, every cached call counts its positions from 0.

Seen with transformers 5.23.0. Called with the new tokens and `past_key_values`, as one does in a
loop of one's own, the logits are wrong from the first cached token on. `generate` is right: it says
the positions.

Cause: in modeling_bamba.py, `BambaModel.forward` makes `position_ids` with
`torch.arange(hidden_states.shape[1])`, without adding `past_key_values.get_seq_length()`. Nearly
all other models of the library add it; falcon_h1, whose code is close to it, does.
"""

import sys

import torch
from transformers import BambaConfig, BambaForCausalLM

torch.manual_seed(0)
config = BambaConfig(
    vocab_size=50,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    attn_layer_indices=[1],
    num_attention_heads=4,
    num_key_value_heads=2,
    mamba_n_heads=8,
    mamba_d_state=8,
    mamba_chunk_size=8,
    initializer_range=0.5,
)
model = BambaForCausalLM(config).eval()
ids = torch.randint(50, (1, 8))
with torch.no_grad():
    plain = model(ids, use_cache=False).logits[:, -1]
    past = model(ids[:, :7], use_cache=True).past_key_values
    last = model(ids[:, 7:], past_key_values=past, use_cache=True).logits[:, -1]
    past = model(ids[:, :7], use_cache=True).past_key_values
    said = {"position_ids": torch.tensor([[7]])}
    told = model(ids[:, 7:], past_key_values=past, use_cache=True, **said).logits[:, -1]
error, error_told = ((some - plain).abs().max().item() for some in (last, told))
print(f"token 8 with a cache: the logits differ by {error:.2g}; by {error_told:.2g} if it is told")
sys.exit(error > 1e-4)
