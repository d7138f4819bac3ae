"""mamba, falcon_mamba, jamba: several tokens appended to a cache start from an empty state.

Seen with transformers 5.23.0. Prefill 1 token, then 2 at once: the logits of those 2 are not the
logits without a cache. One token at a time is right. Affected are the uses that append several
tokens: chunked prefill, a continued chat, assisted decoding.

Cause: `MambaMixer.forward` reads the recurrent state from the cache, but hands it on only where
`seq_len == 1`. For more tokens it calls `mamba_selective_scan`, which has no argument for an
initial state and begins with zeros; its final state then replaces the one in the cache. The same
code is in modeling_falcon_mamba.py and modeling_jamba.py.

Known for Mamba 2 and mended there: https://github.com/huggingface/transformers/pull/46084 and
https://github.com/huggingface/transformers/pull/46741. The first Mamba was left as it was.
"""

import sys

import torch
from transformers import MambaConfig, MambaForCausalLM

torch.manual_seed(0)
config = MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, initializer_range=0.5)
model = MambaForCausalLM(config).eval().double()
ids = torch.randint(50, (1, 12))
with torch.no_grad():
    plain = model(ids, use_cache=False).logits
    first = model(ids[:, :6], use_cache=True)
    rest = model(ids[:, 6:], cache_params=first.cache_params, use_cache=True).logits
error = (rest - plain[:, 6:]).abs().max().item()
print(
    f"6 tokens, then 6 at once: the logits differ by {error:.2g}; they spread by {plain.std():.2g}"
)
sys.exit(error > 1e-4)
