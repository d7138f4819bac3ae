"""moshi: the cache forgets what is outside of its window, the mask does not.

Seen with transformers 5.23.0. From the position on at which `sliding_window` is full, cached logits
are not those without a cache.

Cause: in modeling_moshi.py both models make `DynamicCache(config=self.config)`, whose layers slide
because the configuration has a `sliding_window`, but build their mask with `create_causal_mask`:
the uncached pass looks at everything. `create_sliding_window_causal_mask` would look at what the
cache keeps.

A symptom of it is discussed in https://github.com/huggingface/transformers/pull/39251 (the depth
decoder, whose window is 8, is right only with a cache that keeps all).
"""

import sys

import torch
from transformers import MoshiConfig, MoshiForCausalLM

torch.manual_seed(0)
config = MoshiConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    ffn_dim=48,
    sliding_window=8,
    initializer_range=0.5,
)
model = MoshiForCausalLM(config).eval()
ids = torch.randint(50, (1, 20))
with torch.no_grad():
    plain = model(ids, use_cache=False).logits
    logits, past = [], None
    for column in range(20):
        out = model(ids[:, column : column + 1], past_key_values=past, use_cache=True)
        past = out.past_key_values
        logits.append(out.logits)
errors = (torch.cat(logits, dim=1) - plain).abs().amax((0, 2))
wrong = (errors > 1e-4).nonzero().flatten().tolist()
print(f"20 tokens, 1 at a time: wrong at positions {wrong}, by up to {errors.max():.2g}")
sys.exit(bool(wrong))
