"""A small model of any type: a configuration with few numbers, and weights that are drawn.

Nothing is downloaded. The numbers are found by the names of a configuration's fields, which most
types share; what a type needs beyond that is in `exceptions`.
"""

import copy
import dataclasses
import math
from typing import Any

import torch
from torch import nn

from .exceptions import EXCEPTIONS
from .installed import class_of, library

VOCAB = 48
POSITIONS = 160
WINDOW = 8
MOST_KINDS = 6
SIZES = (
    (
        VOCAB,
        "vocab_size n_vocab vocab_size_per_layer_input shape_vocab_size pronunciation_vocab_size "
        "encoder_hash_byte_group_vocab",
    ),
    (
        POSITIONS,
        "max_position_embeddings n_positions n_ctx max_sequence_length max_seq_len "
        "max_target_positions max_source_positions context_length seq_length "
        "max_2d_position_embeddings",
    ),
    (
        WINDOW,
        "sliding_window window_size attention_chunk_size attention_window_size chunk_size "
        "mamba_chunk_size local_window_size local_attention sliding_window_size chunk_length",
    ),
    (
        32,
        "hidden_size n_embd d_model dim embed_dim word_embed_proj_dim embedding_size "
        "dim_model decoder_hidden_size text_hidden_size out_hidden_size projection_dim "
        "lru_width projector_hidden_size encoder_hidden_size attention_hidden_size "
        "mm_hidden_size emb_dim pronunciation_embed_dim shape_embed_dim adapter_in_dim "
        "adapter_out_dim adapter_input_size hidden_size_global",
    ),
    (
        48,
        "intermediate_size ffn_dim d_ff n_inner encoder_ffn_dim decoder_ffn_dim "
        "ffn_hidden_size shared_expert_intermediate_size dim_ff mlp_dim ff_dim "
        "dff d_inner",
    ),
    (
        16,
        "index_n_heads index_head_dim moe_intermediate_size q_lora_rank kv_lora_rank "
        "qk_lora_rank shared_intermediate_size expert_ffn_hidden_size o_lora_rank "
        "hidden_size_per_layer_input block_ff_dim moe_shared_expert_intermediate_size "
        "laurel_rank moe_latent_size",
    ),
    (
        8,
        "head_dim v_head_dim qk_rope_head_dim qk_nope_head_dim qk_head_dim d_kv kv_channels "
        "state_size mamba_d_state ssm_state_size linear_key_head_dim linear_value_head_dim "
        "attention_head_dim dim_head global_head_dim swa_head_dim "
        "swa_v_head_dim rotary_dim mamba_d_head mamba_headdim mamba_head_dim "
        "linear_head_dim",
    ),
    (
        4,
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads "
        "decoder_attention_heads num_experts num_local_experts n_routed_experts "
        "moe_num_experts num_moe_experts linear_num_value_heads linear_num_key_heads "
        "mamba_n_heads mamba_num_heads conv_kernel linear_conv_kernel_dim mamba_d_conv "
        "conv_kernel_size conv1d_width swa_num_attention_heads conv_L_cache "
        "index_topk patch_size image_size linear_num_heads",
    ),
    (
        2,
        "num_key_value_heads num_experts_per_tok num_experts_per_token moe_topk num_kv_heads "
        "moe_k top_k_experts swa_num_key_value_heads expand mamba_expand moe_top_k "
        "type_vocab_size mamba_n_groups n_groups num_selected_experts top_k "
        "num_global_key_value_heads depth num_codebooks",
    ),
    (
        1,
        "n_group topk_group n_shared_experts first_k_dense_replace decoder_sparse_step "
        "moe_num_shared_experts num_shared_experts num_nextn_predict_layers num_mtp_layers "
        "num_dense_layers first_k_dense_layers",
    ),
)
DEPTH = (
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers "
    "num_decoder_layers num_blocks layers"
)


def small_model(name: str, layers: int | None = None, seed: int = 0) -> nn.Module:
    """A model of this type with drawn weights, in eval mode, in float32.

    `layers` is how many it has; without it, as many as show each kind of layer it has. Raises
    ValueError for a type that does not exist, and what the library raises for one that can't be
    made so small.
    """
    kind = class_of(name)
    config = small_config(name, layers)
    torch.manual_seed(seed)
    model = kind._from_config(config, **MADE_WITH).eval()
    livelier(model, seed)
    return model


MADE_WITH = {"dtype": torch.float32}


def small_config(name: str, layers: int | None = None) -> Any:
    """The configuration of `small_model`."""
    kind, wanted = library().CONFIG_MAPPING[name], class_of(name).config_class
    config = kind(**small_values(kind, layers))
    parts = [getattr(config, part) for part in getattr(kind, "sub_configs_defaults", {})]
    if wanted is None or isinstance(config, wanted):
        return config
    return next((part for part in parts if isinstance(part, wanted)), config)


def small_values(kind: type, layers: int | None = None) -> dict[str, Any]:
    """Arguments for a configuration class: small sizes, and the same for the classes inside it."""
    wanted = {name: size for size, names in SIZES for name in names.split()}
    chosen = layers_chosen(kind, layers)
    wanted |= dict.fromkeys(DEPTH.split(), len(chosen))
    found = by_layer(kind, chosen)
    for field in dataclasses.fields(kind):
        if field.name in wanted and isinstance(_default(field), int):
            found[field.name] = wanted[field.name]
        elif field.name.endswith(("_token_id", "_token_index")):
            found |= _special(field)
    names = {field.name for field in dataclasses.fields(kind)}
    if "kv_lora_rank" in names and "num_key_value_heads" in names:
        found["num_key_value_heads"] = wanted["num_attention_heads"]
    if "is_decoder" in names:
        found["is_decoder"] = True
    for name, spec in getattr(kind, "sub_configs_defaults", {}).items():
        inner = spec.get_config_class(spec.model_type) if spec.model_type else spec.config_class
        found[name] = {"model_type": inner.model_type, **small_values(inner, layers)}
    return with_exceptions(found, copy.deepcopy(EXCEPTIONS.get(kind.model_type, {})))


def with_exceptions(found: dict[str, Any], exceptions: dict[str, Any]) -> dict[str, Any]:
    """Values with others in their place; where both are dictionaries, that holds inside, too."""
    inside = {
        name: with_exceptions(found[name], value)
        for name, value in exceptions.items()
        if isinstance(value, dict) and isinstance(found.get(name), dict)
    }
    return found | exceptions | inside


def lists_of(kind: type) -> dict[str, list]:
    """What the type's usual configuration says of each of its layers: one list for each field."""
    usual = kind()
    names = {field.name for field in dataclasses.fields(kind)}
    depth = next((getattr(usual, name) for name in DEPTH.split() if name in names), None)
    return {
        name: value
        for name, value in vars(usual).items()
        if name in names and isinstance(value, list) and len(value) == depth
        if len(set(map(str, value))) <= MOST_KINDS
    }


def layers_chosen(kind: type, layers: int | None) -> list[int]:
    """Layers of the usual configuration that show every kind of layer it has: two or more."""
    exception = EXCEPTIONS.get(kind.model_type, {})
    number = layers or exception.get("num_hidden_layers") or len(exception.get("layer_types", "12"))
    lists = list(lists_of(kind).values())
    if not lists:
        return list(range(number))
    kinds = [str(some) for some in zip(*lists, strict=True)]
    first = [place for place, some in enumerate(kinds) if some not in kinds[:place]]
    if layers is None and "layer_types" not in exception:
        return first if len(first) > 1 else [0, 1]
    return sorted(first[i % len(first)] for i in range(number))


def by_layer(kind: type, chosen: list[int]) -> dict[str, list]:
    return {name: [value[i] for i in chosen] for name, value in lists_of(kind).items()}


def _default(field: dataclasses.Field) -> Any:
    return None if isinstance(field.default, bool) else field.default


def _special(field: dataclasses.Field) -> dict[str, int]:
    """An id that means something, where its field has one that a small vocabulary has not."""
    value = _default(field)
    if not isinstance(value, int) or 0 <= value < VOCAB:
        return {}
    return {field.name: 0 if field.name == "pad_token_id" else VOCAB - 1}


@torch.no_grad()
def livelier(model: nn.Module, seed: int = 0) -> None:
    """Draw weights again where they are too small or all equal for a wrong cache to be seen.

    Fresh models of the library have matrices of about 0.02: attention is then almost even, whatever
    the keys are, and a part that is set to 0 hides what goes through it.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if not weight.is_floating_point() or weight.numel() < 2:
            continue
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        spread = weight.float().std().item()
        if weight.dim() > 1 and 0 < spread < 0.1:
            weight.mul_(1.2 / math.sqrt(weight.size(-1)) / spread)
        elif spread == 0:
            weight.add_(0.2 * noise)
