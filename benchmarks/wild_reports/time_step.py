"""zamba2, nemotron_h: the smallest time step holds for several tokens, but not for one.

Seen with transformers 5.23.0. Where a token's time step is below `time_step_min` (0.001), its
logits with a cache are not those without: decoding uses the step as it is, the pass over several
tokens raises it to 0.001.

Cause: in modeling_zamba2.py (and modeling_nemotron_h.py) `mamba2_chunk_scan` is given
`dt_limit=self.time_step_limit`, which is (time_step_min, inf), and clamps; the one-token branch
calls `mamba2_selective_state_update`, which has no such argument. In mamba2 and bamba the limit is
(0, inf) by default and does nothing.

Related: https://github.com/huggingface/transformers/pull/48989 would take nemotron_h's limit from
its configuration, which is (0, inf): that would hide the difference there, not for zamba2.
"""

import sys

import torch
from transformers import NemotronHConfig, NemotronHForCausalLM

torch.manual_seed(0)
config = NemotronHConfig(
    vocab_size=50,
    hidden_size=32,
    layers_block_type=["mamba", "attention"],
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    intermediate_size=48,
    mamba_num_heads=4,
    mamba_head_dim=8,
    n_groups=1,
    ssm_state_size=8,
    chunk_size=8,
    initializer_range=0.5,
)
model = NemotronHForCausalLM(config).eval()
with torch.no_grad():
    for name, weight in model.named_parameters():
        if name.endswith("dt_bias"):
            weight.fill_(-9.0)  # softplus(-9) is 0.00012
    ids = torch.randint(50, (1, 12))
    plain = model(ids, use_cache=False).logits
    first = model(ids[:, :1], use_cache=True)
    logits, past = [first.logits], first.past_key_values
    for column in range(1, 12):
        out = model(ids[:, column : column + 1], past_key_values=past, use_cache=True)
        logits.append(out.logits)
error = (torch.cat(logits, dim=1) - plain).abs().max().item()
print(f"12 tokens, 1 at a time: the logits differ by {error:.2g}; they spread by {plain.std():.2g}")
sys.exit(error > 1e-4)
