"""gpt_neo: with a static cache the window of a local layer lies at the end of the cache.

Seen with transformers 5.23.0. With a `StaticCache`, already the first call is wrong, and
`generate(cache_implementation="static")` chooses other tokens, without a warning. Global layers
are right.

Cause: in modeling_gpt_neo.py, `GPTNeoSelfAttention._attn` cuts the mask of a local layer by the
number of keys, `bias[:, :, key_length - query_length : key_length, :key_length]`. A static cache
always returns all of its places, so these are the windows of the last tokens that it has room for.
"""

import sys

import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM, StaticCache

torch.manual_seed(0)
config = GPTNeoConfig(
    vocab_size=50,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    intermediate_size=48,
    attention_types=[[["global", "local"], 1]],
    window_size=4,
    max_position_embeddings=32,
    initializer_range=0.5,
)
model = GPTNeoForCausalLM(config).eval()
ids = torch.randint(50, (1, 6))
with torch.no_grad():
    plain = model(ids, use_cache=False).logits
    past = StaticCache(config=config, max_cache_len=16)
    model(ids[:, :5], past_key_values=past, use_cache=True)
    last = model(ids[:, 5:], past_key_values=past, use_cache=True).logits
error = (last - plain[:, 5:]).abs().max().item()
print(f"5 tokens, then 1: the logits differ by {error:.2g}; they spread by {plain.std():.2g}")
sys.exit(error > 1e-4)
