"""deepseek_v4: `crop` and `batch_select_indices` leave what was compressed as it was.

Seen with transformers 5.23.0. Below the length of the window the cache says `is_croppable` and
`crop(-n)` raises nothing; the tokens that follow get wrong logits. Assisted decoding crops after
every guess that was wrong.

Cause: in modeling_deepseek_v4.py, `DeepseekV4HCACache` and `DeepseekV4CSACache` override `update`,
`reorder_cache` and `reset` of `DynamicSlidingWindowLayer`. `crop` (and `batch_select_indices`) is
inherited and cuts the keys and values of the window only: the compressor's buffer, its entries and
their count stay as they were, and so does the overlap state of CSA.

The same was found in the review of its successor's code, which was to say `is_croppable = False`:
https://github.com/huggingface/transformers/pull/48721
"""

import sys

import torch
from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

torch.manual_seed(0)
config = DeepseekV4Config(
    vocab_size=48,
    hidden_size=32,
    moe_intermediate_size=16,
    num_hidden_layers=3,
    layer_types=[
        "heavily_compressed_attention",
        "compressed_sparse_attention",
        "heavily_compressed_attention",
    ],
    mlp_layer_types=["hash_moe", "moe", "moe"],
    compress_rates={"compressed_sparse_attention": 4, "heavily_compressed_attention": 16},
    num_attention_heads=4,
    num_key_value_heads=1,
    head_dim=16,
    q_lora_rank=16,
    o_lora_rank=16,
    o_groups=4,
    n_routed_experts=4,
    num_experts_per_tok=2,
    index_n_heads=16,
    index_head_dim=16,
    index_topk=4,
    sliding_window=16,
    initializer_range=0.3,
)
model = DeepseekV4ForCausalLM(config).eval()
ids, other = torch.randint(3, 45, (1, 12)), torch.randint(3, 45, (1, 3))
right = torch.cat([ids[:, :4], ids[:, 7:]], dim=1)
with torch.no_grad():
    plain = model(right, use_cache=False).logits
    past = model(torch.cat([ids[:, :4], other], dim=1), use_cache=True).past_key_values
    offered = past.is_croppable
    past.crop(-3)
    rest = model(ids[:, 7:], past_key_values=past, use_cache=True).logits
error = (rest - plain[:, 4:]).abs().max().item()
print(
    f"is_croppable: {offered}; 4 tokens, 3 guesses taken back, 5 tokens: "
    f"the logits differ by {error:.2g}"
)
sys.exit(error > 1e-3)
