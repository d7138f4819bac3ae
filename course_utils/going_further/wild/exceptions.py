"""What a small configuration of a type needs beyond its sizes, by model type."""

from typing import Any

HYBRID = {"num_hidden_layers": 3, "attn_layer_period": 2, "attn_layer_offset": 1}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
SECTIONS = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
}
VQ = {"base_channels": 32, "channel_multiplier": [1, 1], "num_embeddings": 48}
PATTERN = ["linear_attention", "full_attention", "linear_attention"]

EXCEPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "num_hidden_layers": 3, "mamba_n_heads": 8},
    "chameleon": {
        "vocabulary_map": {"<image>": 47},
        "vq_config": VQ,
    },
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": SECTIONS["rope_parameters"]},
    },
    "cosmos3_edge_text": SECTIONS,
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48},
        "n_heads": 4,
    },
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
    "dots1": ROUTED | {"layer_types": ["full_attention", "sliding_attention"]},
    "dots3_note_text": {
        "num_key_value_heads": 4,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 8,
    },
    "ernie4_5_vl_moe_text": SECTIONS,
    "evolla": {
        "aligner_num_add_layers": 1,
        "resampler_depth": 1,
        "resampler_dim_head": 8,
        "protein_encoder_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
        },
    },
    "florence2": {
        "vision_config": {
            "depths": [1, 1, 1, 1],
            "embed_dim": [8, 8, 8, 8],
            "num_heads": [1, 1, 1, 1],
            "num_groups": [1, 1, 1, 1],
        }
    },
    "gemma3n_text": {"num_kv_shared_layers": 1, "layer_types": ["sliding_attention"] * 2},
    "glm4v_moe_text": SECTIONS | {"head_dim": 16},
    "glm4v_text": SECTIONS,
    "glm5_next_text": {"num_key_value_heads": 4, "index_kpool": 2, "qk_rope_head_dim": 0},
    "glm_ocr_text": SECTIONS,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granite4_vision": {
        "deepstack_layer_map": [],
        "spatial_target_layers": [],
        "downsample_rate": "1/2",
        "vision_config": {"hidden_size": 64},
    },
    "granitemoehybrid": {"num_hidden_layers": 3, "layer_types": PATTERN, "mamba_n_heads": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl_text": {
        "head_dim": 8,
        "rope_parameters": SECTIONS["rope_parameters"] | {"mrope_section": [1, 1, 1, 1]},
    },
    "jamba": HYBRID,
    "janus": {
        "vq_config": {"base_channels": 32, "channel_multiplier": [1, 1], "num_embeddings": 48}
    },
    "lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "molmo2": {"adapter_config": {"vision_feature_layer": [1, 0]}},
    "muse_spark": {
        "audio_config": {
            "num_hidden_layers": 4,
            "hidden_sizes": [8, 8, 8, 8],
            "depths": [1, 1, 1, 1],
        }
    },
    "ministral": {"head_dim": 8},
    "musicgen_decoder": {"num_codebooks": 1},
    "musicgen_melody_decoder": {"num_codebooks": 1},
    "nemotron_h_omni": {
        "vision_config": {"video_temporal_patch_size": 2},
        "audio_config": {"projection_hidden_size": 32, "projection_bias": False},
    },
    "nemotron": {"head_dim": 8, "num_key_value_heads": 2},
    "paddleocr_vl_text": SECTIONS,
    "qwen2_5_omni_text": SECTIONS,
    "qwen2_5_vl_text": SECTIONS,
    "qwen2_vl_text": SECTIONS,
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "is_decoder": True,
        "axial_pos_shape": [8, 20],
        "axial_pos_embds_dim": [16, 16],
        "hash_seed": 0,
        "num_buckets": 4,
    },
    # Checkpoints have the id in their configuration, and `generate` reads it; the class has none.
    "qwen2_5_omni_thinker": {"vision_start_token_id": 46},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 46},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
        "split_ngram_parts": 1,
        "ngram_vocab_size_base": 50,
    },
    "step3p5": {"sliding_window": 8},
    "rwkv": {"attention_hidden_size": 32},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX", "is_decoder": True},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    },
    "zaya": {"num_experts_per_tok": 1},
}
