"""Checkpoints of GPT-2, found, read, checked and written (chapter 12).

    model = load_gpt2(folder)       # config.json and model.safetensors, as on the Hugging Face hub
    export_gpt2(model, folder)      # the other way, for transformers' GPT2LMHeadModel

Shapes: D d_model, F d_ff, V vocab_size, S max_seq_len.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...transformer import DecoderOnlyTransformer, choose_device
from .model import ACTIVATIONS, GPT2, PREFIX, to_gpt2, translate

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
REAL = ("openai-community/gpt2", "gpt2")
SIZES = {
    "vocab_size": "vocab_size",
    "d_model": "n_embd",
    "num_layers": "n_layer",
    "max_seq_len": "n_positions",
    "num_heads": "n_head",
}
ONLY = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "add_cross_attention": False,
}
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")


def read_checkpoint(folder: Path | str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The contents of config.json, and the tensors by name, of a folder in the hub's form.

    The names are without "transformer." and without the masks that some files hold; the tensors
    may be spread over several files, with an index. Raises OSError or ValueError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}.")
    config = _read_json(folder, "config.json")
    files = {FILE}
    if not (folder / FILE).exists() and (folder / INDEX).exists():
        files = set(_read_json(folder, INDEX)["weight_map"].values())
    tensors = {}
    for name in sorted(files):
        _must_exist(folder, name)
        try:
            tensors |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(
                f"{name} is not a whole safetensors file ({error}). Was it copied or downloaded "
                "to the end? A Git LFS pointer of a few lines is not the file."
            ) from None
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    return config, {name: t for name, t in tensors.items() if not MASKS.fullmatch(name)}


def _must_exist(folder: Path, name: str) -> None:
    if not (folder / name).exists():
        found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise FileNotFoundError(
            f"The folder holds no {name}, but {found}. Expected a checkpoint as transformers' "
            "save_pretrained writes it: config.json and model.safetensors."
        )


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    _must_exist(folder, name)
    try:
        found = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{name} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} must hold one JSON object, found a {type(found).__name__}.")
    return found


def gpt2_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `GPT2` that a config.json asks for. Raises ValueError if it cannot be."""
    kind = config.get("model_type")
    if kind != "gpt2":
        raise ValueError(
            f"config.json has model_type={kind!r}, expected 'gpt2'. Other architectures have other "
            "blocks, and their weights mean nothing here."
        )
    for name, only in ONLY.items():
        if config.get(name, only) != only:
            raise ValueError(
                f"config.json has {name}={config[name]}, and the course's attention can only be "
                f"{name}={only}. With it the logits would be wrong without any error."
            )
    activation = config.get("activation_function", "gelu_new")
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"config.json has activation_function={activation!r}, expected one of "
            f"{', '.join(ACTIVATIONS)}."
        )
    missing = [theirs for theirs in SIZES.values() if type(config.get(theirs)) is not int]
    if missing:
        raise ValueError(f"config.json must give {', '.join(missing)} as whole numbers.")
    return {
        **{ours: config[theirs] for ours, theirs in SIZES.items()},
        "d_ff": config.get("n_inner") or 4 * config["n_embd"],
        "activation": activation,
        "eps": config.get("layer_norm_epsilon", 1e-5),
        "tied": config.get("tie_word_embeddings", True),
    }


def expected_shapes(
    vocab_size: int, d_model: int, d_ff: int, num_layers: int, max_seq_len: int
) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a GPT-2 with a tied head."""
    block = {
        "ln_1": (d_model,),
        "attn.c_attn": (d_model, 3 * d_model),
        "attn.c_proj": (d_model, d_model),
        "ln_2": (d_model,),
        "mlp.c_fc": (d_model, d_ff),
        "mlp.c_proj": (d_ff, d_model),
    }
    shapes = {"wte.weight": (vocab_size, d_model), "wpe.weight": (max_seq_len, d_model)}
    shapes |= {"ln_f.weight": (d_model,), "ln_f.bias": (d_model,)}
    for i in range(num_layers):
        for part, shape in block.items():
            shapes |= {f"h.{i}.{part}.weight": shape, f"h.{i}.{part}.bias": shape[-1:]}
    return shapes


def check_tensors(tensors: dict[str, Tensor], arguments: dict[str, Any]) -> None:
    """Raise ValueError unless these are the tensors that a `GPT2` of these arguments has."""
    sizes = {name: arguments[name] for name in (*SIZES, "d_ff") if name != "num_heads"}
    expected = expected_shapes(**sizes)
    if not arguments["tied"]:
        expected["lm_head.weight"] = expected["wte.weight"]
    missing, unexpected = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    if arguments["tied"] and "lm_head.weight" in unexpected:
        unexpected.remove("lm_head.weight")
        if not torch.equal(tensors["lm_head.weight"], tensors["wte.weight"]):
            raise ValueError(
                "config.json ties the head to the token embedding, but lm_head.weight and "
                "wte.weight differ. If the head is right, set tie_word_embeddings to false."
            )
    if missing or unexpected:
        raise ValueError(
            f"These are not the tensors that config.json describes. Missing: {few(missing)}. "
            f"Unexpected: {few(unexpected)}."
        )
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensors[name].shape)}, config.json asks for {shape}."
            )


def few(names: Sequence[str]) -> str:
    """The first four names, and how many more there are."""
    shown = ", ".join(names[:4]) or "none"
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def load_gpt2(folder: Path | str, device: str = "auto", dtype: torch.dtype = torch.float32) -> GPT2:
    """The GPT-2 in a folder of the hub's form, ready for inference.

    Raises OSError if files are missing, ValueError if they do not hold a GPT-2 that the course's
    model can be.
    """
    config, tensors = read_checkpoint(folder)
    arguments = gpt2_arguments(config)
    check_tensors(tensors, arguments)
    model = GPT2(**arguments, dropout=0.0).to(dtype)
    model.load_state_dict(translate(tensors, model.num_layers))
    return model.to(choose_device(device)).eval()


def export_gpt2(model: DecoderOnlyTransformer, folder: Path | str) -> None:
    """Write config.json and model.safetensors so that transformers' GPT2LMHeadModel is this model.

    Attention without biases becomes attention with biases of 0; a head with a bias, which GPT-2 has
    no place for, is folded with the last LayerNorm into one without (`fold_head`).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = to_gpt2(state, model.num_layers)
    block = model.layers[0].feed_forward
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": model.token_embedding.num_embeddings,
        "n_positions": model.max_seq_len,
        "n_embd": model.token_embedding.embedding_dim,
        "n_inner": block.fc1.out_features,
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "activation_function": getattr(block, "activation", "relu"),
        "layer_norm_epsilon": model.norm.eps,
        "tie_word_embeddings": model.output_projection.weight is model.token_embedding.weight,
        "bos_token_id": None,
        "eos_token_id": None,
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    if config["tie_word_embeddings"]:
        del tensors["lm_head.weight"]
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / FILE, metadata={"format": "pt"})


def find_gpt2(download: bool = False) -> Path:
    """The folder of OpenAI's GPT-2 with 124 million parameters.

    Looked for, without a network, in the folder that the environment variable GPT2_FOLDER names and
    in Hugging Face's cache. Only with `download` are its files (550 MB) fetched into that cache.
    Raises FileNotFoundError, or another OSError if they cannot be fetched.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    if os.environ.get("GPT2_FOLDER"):
        return Path(os.environ["GPT2_FOLDER"])
    for name in REAL:
        found = [try_to_load_from_cache(name, file) for file in ("config.json", FILE)]
        if all(isinstance(path, str) for path in found):
            return Path(found[0]).parent
    if not download:
        raise FileNotFoundError(
            "GPT-2 is neither in Hugging Face's cache nor in a folder that GPT2_FOLDER names"
        )
    wanted = ["config.json", FILE, "vocab.json", "merges.txt", "tokenizer.json"]
    return Path(snapshot_download(REAL[0], allow_patterns=wanted, etag_timeout=5))
