"""The decoder-only transformer (notebook 02), with the cache that notebook 04 adds to it.

Pre-norm blocks, learned positions, ReLU feed-forward, final LayerNorm, untied output projection.
`DecoderOnlyTransformer` holds the course's last version, which uses what notebooks 03 and 04 build:
`generation` and `kv_cache`. Neither of them imports this file: they take any model of its form.

Shapes: B batch, T number of tokens, D d_model, F d_ff, V vocab_size, S max_seq_len.
"""

import copy
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .attention import (
    FusedAttention,
    KeyValueStore,
    MultiHeadAttention,
    attention_weights,
    causal_mask,
)
from .generation import generate
from .kv_cache import PreallocatedCache

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "model_state_dict.pt"
CONFIG = ROOT / "data" / "model_config.json"


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between, on each position alone: (B, T, D) -> (B, T, D)."""

    def __init__(self, d_model: int, d_ff: int):
        super().__init__()
        self.fc1 = nn.Linear(d_model, d_ff)
        self.fc2 = nn.Linear(d_ff, d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


class DecoderLayer(nn.Module):
    """One pre-norm block: attention, then feed-forward, each added to the residual stream.

    Source: Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020, figure 1b.
    """

    def __init__(self, d_model: int, d_ff: int, num_heads: int = 1, dropout: float = 0.1):
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.attention = MultiHeadAttention(d_model, num_heads)
        self.norm2 = nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_ff)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueStore | None = None, layer: int = 0) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), cache, layer))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class DecoderOnlyTransformer(nn.Module):
    """Token ids in, logits for the next token out.

    `num_heads` must divide `d_model`. A sequence, cached part included, has at most `max_seq_len`
    tokens.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_ff: int,
        num_layers: int,
        max_seq_len: int,
        num_heads: int = 1,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.max_seq_len = max_seq_len
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.d_head = d_model // num_heads
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.pos_embedding = nn.Embedding(max_seq_len, d_model)
        self.layers = nn.ModuleList(
            DecoderLayer(d_model, d_ff, num_heads, dropout) for _ in range(num_layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(d_model)
        self.output_projection = nn.Linear(d_model, vocab_size)

    @property
    def dtype(self) -> torch.dtype:
        return self.token_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    def forward(
        self, input_ids: Tensor, past_kv: Any = None, use_cache: bool = False
    ) -> tuple[Tensor, Any]:
        """Logits (B, T, V) for `input_ids` (B, T), and the cache if `use_cache`, else None.

        `past_kv` is what an earlier call with `use_cache=True` returned: `input_ids` are then only
        the tokens that come after it. It is updated in place and returned.
        Raises ValueError if the ids do not fit `past_kv` or `max_seq_len`, and leaves the cache as
        it was.
        """
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        start = 0 if past_kv is None else past_kv.length
        x = self.embed(input_ids, start)
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv

    def embed(self, input_ids: Tensor, start: int = 0) -> Tensor:
        """Token plus position embeddings (B, T, D); the first token is at position `start`."""
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        return self.dropout(self.token_embedding(input_ids) + self.pos_embedding(positions))

    def check_input(self, input_ids: Tensor, past_kv: Any, use_cache: bool) -> None:
        """Raise ValueError, before any work is done, if `forward` cannot take this input."""
        if past_kv is not None and not use_cache:
            raise ValueError("past_kv was given with use_cache=False: pass use_cache=True as well.")
        if input_ids.dim() != 2 or input_ids.size(1) == 0:
            raise ValueError(
                f"input_ids has shape {tuple(input_ids.shape)}, expected (batch, seq_len) with "
                "seq_len >= 1. For one sequence use input_ids.unsqueeze(0)."
            )
        stored = 0 if past_kv is None else past_kv.length
        if stored + input_ids.size(1) > self.max_seq_len:
            raise ValueError(
                f"{stored} cached + {input_ids.size(1)} new tokens do not fit "
                f"max_seq_len={self.max_seq_len}. Pass fewer tokens or start a new sequence."
            )
        if past_kv is not None and past_kv.batch_size != input_ids.size(0):
            raise ValueError(
                f"The cache holds {past_kv.batch_size} sequences and {input_ids.size(0)} came in. "
                "A batch keeps its rows from the first call to the last."
            )

    def new_cache(self, batch_size: int) -> KeyValueStore:
        """An empty cache for `batch_size` sequences of this model."""
        return PreallocatedCache(self, batch_size)

    def generate(
        self,
        input_ids: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        use_cache: bool = True,
        **options: Any,
    ) -> Tensor:
        """Prompt and continuation (B, T + max_new_tokens); `options` as in `generation.generate`.

        `temperature=0` is greedy.
        """
        return generate(self, input_ids, max_new_tokens, temperature, use_cache, **options)


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is CUDA if there is one, else Apple's MPS, else the CPU.

    Raises ValueError for a name that is unknown or not available here.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    available["cpu"] = True
    if name == "auto":
        name = next(kind for kind, here in available.items() if here)
    if not available.get(name.split(":")[0], False):
        here = ", ".join(kind for kind, there in available.items() if there)
        raise ValueError(f"Device {name!r} is not available here. Choose from: auto, {here}.")
    return torch.device(name)


def load_config(path: Path | str = CONFIG) -> dict[str, int]:
    """The constructor's arguments from a JSON file. Raises OSError or ValueError."""
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(config, dict) or not all(type(n) is int for n in config.values()):
        raise ValueError(f"{path} must hold one JSON object of whole numbers: see {CONFIG.name}.")
    return config


def load_weights(model: nn.Module, path: Path | str = WEIGHTS) -> None:
    """Fill `model` from a file that holds a plain state dict, names and shapes exactly.

    Only tensors are read: a file that would run code is refused.
    Raises OSError if it cannot be read, ValueError if it is not such a file or does not fit.
    """
    content = io.BytesIO(Path(path).read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception:
        raise ValueError(
            f"{path} is not a plain PyTorch state dict: it is truncated, of another format, or a "
            "pickle that holds more than tensors, which is never loaded. Save one with "
            "torch.save(model.state_dict(), path)."
        ) from None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(t, Tensor) for name, t in state.items()
    ):
        raise ValueError(f"{path} holds no state dict: expected a dict from names to tensors.")
    if unreal := [name for name, t in state.items() if t.is_complex()]:
        raise ValueError(f"{path} holds complex numbers in {unreal[0]}; expected real ones.")
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        problems = " ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise ValueError(f"{path} does not fit the model: {problems}") from None


def load_model(
    weights: Path | str = WEIGHTS,
    config: Path | str | dict[str, int] = CONFIG,
    device: str = "auto",
    dtype: torch.dtype = torch.float32,
    model_class: type[nn.Module] = DecoderOnlyTransformer,
) -> nn.Module:
    """A model with trained weights, ready for inference (no dropout). Raises as its parts do."""
    config = config if isinstance(config, dict) else load_config(config)
    model = model_class(**config, dropout=0.0)
    load_weights(model, weights)
    return model.to(device=choose_device(device), dtype=dtype).eval()


def fuse_attention(model: DecoderOnlyTransformer) -> DecoderOnlyTransformer:
    """A copy of the model that computes its attention by PyTorch's fused kernel: same logits."""
    model = copy.deepcopy(model)
    for layer in model.layers:
        fused = FusedAttention(layer.attention.W_q.in_features, model.num_heads)
        fused.load_state_dict(layer.attention.state_dict())
        layer.attention = fused.to(device=model.device, dtype=model.dtype)
    return model.eval()


@torch.no_grad()
def attention_maps(model: DecoderOnlyTransformer, input_ids: Tensor) -> Tensor:
    """Where each head looks: attention weights (num_layers, H, T, T) on one sequence (1, T)."""
    x = model.embed(input_ids)
    mask = causal_mask(input_ids.size(1), input_ids.size(1), input_ids.device)
    maps = []
    for layer in model.layers:
        heads, normed = layer.attention, layer.norm1(x)
        q, k = (heads.split_heads(W(normed)) for W in (heads.W_q, heads.W_k))
        maps.append(attention_weights(q, k, mask)[0])
        x = layer(x)
    return torch.stack(maps)
