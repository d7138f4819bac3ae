"""git: a cached call with an attention mask and no image moves the mask by an image.

Seen with transformers 5.23.0, text alone. Prompts of different length, padded on the left: the
first call is right, from the first cached token on the padded rows are wrong.

Cause: in modeling_git.py, `GitModel.forward` puts `image_patch_tokens` ones before a 2D
`attention_mask` whenever the cache holds something, as if there had been an image in the first
call. Without one, every column of the mask then speaks of another token, and what is too much at
its end is cut off: the padding counts as seen.
"""

import sys

import torch
from transformers import GitConfig, GitForCausalLM

torch.manual_seed(0)
config = GitConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    bos_token_id=1,
    eos_token_id=2,
    initializer_range=0.5,
    vision_config={
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 16,
    },
)
model = GitForCausalLM(config).eval()
ids = torch.randint(3, 50, (1, 6))
padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], dim=1)
mask = (torch.arange(9) >= 3).long()[None]
positions = (mask.cumsum(-1) - 1).clamp(min=0)
with torch.no_grad():
    plain = model(ids, use_cache=False).logits[:, -1]
    said = {"attention_mask": mask[:, :8], "position_ids": positions[:, :8]}
    past = model(padded[:, :8], use_cache=True, **said).past_key_values
    said = {"attention_mask": mask, "position_ids": positions[:, 8:]}
    last = model(padded[:, 8:], past_key_values=past, use_cache=True, **said).logits[:, -1]
error = (last - plain).abs().max().item()
print(f"3 columns of padding, 5 tokens, then 1: the logits differ by {error:.2g}")
sys.exit(error > 1e-4)
