"""qwen2_vl and its family: `generate` leaves `rope_deltas` in the model; any cache then takes them.

Seen with transformers 5.23.0. A cache of one row, then `generate` for two prompts, then the next
token into the cache: RuntimeError. Text alone, no image. If the number of rows divides, nothing is
raised, and the cache goes on with the positions of another generation, which are right only where
neither has an image. A server that has two conversations at once does this; a loop of one's own
with `position_ids` is right.

Cause: in modeling_qwen2_vl.py, `Qwen2VLModel.compute_3d_position_ids` takes `self.rope_deltas`, an
attribute of the model, for every call with a filled cache, and repeats it `batch_size //
self.rope_deltas.shape[0]` times: none for one row where there were two. The same is in
cohere_compass, cosmos3_edge, cosmos3_omni, ernie4_5_vl_moe, glm4v, glm4v_moe, glm46v, glm_ocr,
glmga, paddleocr_vl, qwen2_5_vl, qwen2_5_omni, qwen3_omni_moe, qwen3_vl and qwen3_vl_moe.

Known, and mended for calls without a cache: https://github.com/huggingface/transformers/pull/44873
"""

import sys

import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

torch.manual_seed(0)
config = Qwen2VLConfig(
    text_config={
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [1, 1, 2],
        },
    },
    vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 1},
    image_token_id=45,
    video_token_id=46,
    vision_start_token_id=47,
    vision_end_token_id=48,
)
model = Qwen2VLForConditionalGeneration(config).eval()
ids = torch.randint(3, 40, (2, 6))
with torch.no_grad():
    past = model(ids[:1, :5], use_cache=True).past_key_values
    model.generate(ids, max_new_tokens=1, do_sample=False)
    try:
        model(ids[:1, 5:], past_key_values=past, use_cache=True)
        problem = ""
    except RuntimeError as error:
        problem = str(error).splitlines()[0]
print(f"5 tokens, generate for 2 other rows, 1 token: {problem or 'no error'}")
sys.exit(bool(problem))
