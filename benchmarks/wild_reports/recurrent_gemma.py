"""recurrent_gemma: appended tokens forget what the convolution saw, and two caches share states.

Seen with transformers 5.23.0. Prefill 6 tokens, then 6 at once: the logits of the latter are not
the logits without a cache. One token at a time is right, as long as the model has one cache: a
second one, begun in between, changes the first.

Cause: in modeling_recurrent_gemma.py, `RecurrentGemmaRecurrentBlock.forward` takes every call with
more than one token for the first: it convolves the new tokens alone and replaces `conv1d_state`.
That and `rg_lru.recurrent_states` are attributes of the modules; `past_key_values` does not have
them, though its layers of linear attention have a place for both. (The model does not return
`past_key_values` either: one must be given.)
"""

import sys

import torch
from transformers import DynamicCache, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

torch.manual_seed(0)
config = RecurrentGemmaConfig(
    vocab_size=50,
    hidden_size=32,
    lru_width=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=8,
)
model = RecurrentGemmaForCausalLM(config).eval()
ids, other = torch.randint(3, 50, (2, 1, 12))
with torch.no_grad():
    for weight in model.parameters():
        weight.add_(0.3 * torch.randn_like(weight))
    plain = model(ids, use_cache=False).logits[:, 6:]

    how = {"past_key_values": DynamicCache(config=config), "use_cache": True}
    model(ids[:, :6], **how)
    at_once = (model(ids[:, 6:], **how).logits - plain).abs().max().item()

    how = {"past_key_values": DynamicCache(config=config), "use_cache": True}
    model(ids[:, :6], **how)
    model(other, past_key_values=DynamicCache(config=config), use_cache=True)
    shared = (model(ids[:, 6:7], **how).logits - plain[:, :1]).abs().max().item()
print(
    f"6 tokens, then 6 at once: the logits differ by {at_once:.2g}; "
    f"then 1, with another cache begun in between: by {shared:.2g}"
)
sys.exit(max(at_once, shared) > 1e-3)
