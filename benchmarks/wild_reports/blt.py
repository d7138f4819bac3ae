"""blt: no call with a cache works.

Seen with transformers 5.23.0. `model(ids)` raises AttributeError, as `use_cache` is True by
default, and so does `generate`. With `use_cache=False` both work.

Cause: in modeling_blt.py, `BltModel.forward` makes `DynamicCache(config=self.config)`, and
`generate` makes one of `config.get_text_config(decoder=True)`, which for a `BltConfig` is itself:
it has its layers in `encoder_config`, `global_config` and `decoder_config` and no
`num_hidden_layers`.

Known: https://github.com/huggingface/transformers/pull/47916, closed without being merged.
"""

import sys

import torch
from transformers import BltConfig, BltForCausalLM

torch.manual_seed(0)
small = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "intermediate_size": 48,
    "vocab_size": 260,
}
config = BltConfig(
    hidden_size_global=32,
    encoder_hash_byte_group_vocab=50,
    encoder_config=small | {"hidden_size_global": 32},
    decoder_config=small | {"hidden_size_global": 32},
    global_config=small,
    patcher_config=small,
)
model = BltForCausalLM(config).eval()
ids = torch.randint(3, 50, (1, 6))
with torch.no_grad():
    shape = tuple(model(ids, use_cache=False).logits.shape)
    try:
        model(ids, use_cache=True)
        problem = ""
    except AttributeError as error:
        problem = str(error)
print(f"without a cache: logits {shape}; with one: {problem or 'no error'}")
sys.exit(bool(problem))
