"""mamba, falcon_mamba: a cached call with the mask of all columns computes with as many tokens.

Seen with transformers 5.23.0. In a loop of one's own the attention mask has a column for every
token so far, as other models want it. After the first call the two Mambas then return wrong logits,
and raise nothing. `generate` is right: it leaves the mask out after the first call.

Cause: in modeling_mamba.py and modeling_falcon_mamba.py the model hands the mask on as it is, and
`apply_mask_to_padding_states` multiplies the new token, (rows, 1, size), by it, (rows, columns, 1):
the product has all the columns again. The other models with states, mamba2 and jamba among them,
call `create_recurrent_attention_mask` first, which leaves the mask out for a single token and cuts
it for several: https://github.com/huggingface/transformers/pull/47087 mended those.
"""

import sys

import torch
from transformers import MambaConfig, MambaForCausalLM

torch.manual_seed(0)
config = MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, initializer_range=0.5)
model = MambaForCausalLM(config).eval()
ids = torch.randint(3, 50, (1, 6))
padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
mask = (torch.arange(9) >= 3).long()[None]
with torch.no_grad():
    plain = model(ids, use_cache=False).logits[:, -1]
    errors = []
    for said in (mask, None):
        first = model(padded[:, :8], attention_mask=mask[:, :8], use_cache=True)
        how = {"cache_params": first.cache_params, "use_cache": True}
        last = model(padded[:, 8:], attention_mask=said, **how).logits
        errors.append((last[:, -1] - plain).abs().max().item())
print(
    f"3 columns of padding, 5 tokens, then 1: the logits differ by {errors[0]:.2g} with the mask, "
    f"by {errors[1]:.2g} without one"
)
sys.exit(errors[0] > 1e-3)
