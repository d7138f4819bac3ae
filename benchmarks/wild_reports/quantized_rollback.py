"""QuantizedCache: `crop` and `batch_select_indices` touch what is not quantised, or fail.

Seen with transformers 5.23.0, with the fp8 backend, which needs no other package. The cache says
`is_croppable`, and `crop(-2)` raises IndexError, as does `batch_select_indices`.

Cause: in cache_utils.py the quantised layers inherit both from `DynamicLayer`, which slices
`self.keys`: an empty tensor in fp8, the residual alone in quanto and hqq (there nothing is raised,
and `cumulative_length` stays as it was). Only `reorder_cache` is overridden.

Known: https://github.com/huggingface/transformers/pull/45510, closed without being merged.
"""

import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, QuantizedCache

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
)
model = LlamaForCausalLM(config).eval()
past = QuantizedCache(backend="fp8", config=config)
with torch.no_grad():
    model(torch.randint(50, (2, 6)), past_key_values=past, use_cache=True)
failed = []
offered = past.is_croppable
for name, argument in (("crop", -2), ("batch_select_indices", torch.tensor([1, 0]))):
    try:
        getattr(past, name)(argument)
    except IndexError as error:
        failed.append(f"{name}: IndexError: {error}")
print(f"is_croppable: {offered}; {'; '.join(failed)}")
sys.exit(bool(failed))
