"""GPT-2 as a variant of the course's model, and how their tensors correspond (chapter 12).

GPT-2 has what the course's model has not: biases in attention, GELU, a head that is the token
embedding. All else is inherited: `forward`, `generate`, the caches.

    translate      GPT-2's tensors under the course's names, in the course's shapes
    to_gpt2        the way back

Shapes: D d_model, F d_ff, V vocab_size, S max_seq_len. GPT-2 keeps a matrix as (D_in, D_out),
`nn.Linear` as (D_out, D_in).
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...transformer import DecoderOnlyTransformer, FeedForward

PREFIX = "transformer."
BLOCK = {
    "ln_1": "norm1",
    "attn.c_proj": "attention.W_o",
    "ln_2": "norm2",
    "mlp.c_fc": "feed_forward.fc1",
    "mlp.c_proj": "feed_forward.fc2",
}


def gelu_new(x: Tensor) -> Tensor:
    """GELU by the formula with tanh, which GPT-2 was trained with; element by element.

    Source: Hendrycks & Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, section 2.
    """
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu": F.gelu,
    "relu": torch.relu,
}


class GPT2FeedForward(FeedForward):
    """`FeedForward` with another function between its two layers."""

    def __init__(self, d_model: int, d_ff: int, activation: str):
        super().__init__(d_model, d_ff)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        activation = ACTIVATIONS[self.activation]
        return self.fc2(activation(self.fc1(x)))


class GPT2(DecoderOnlyTransformer):
    """The course's model with GPT-2's switches; how it runs and is cached, it inherits."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        d_ff: int,
        *shape: int,
        activation: str = "gelu_new",
        eps: float = 1e-5,
        tied: bool = True,
        **options: Any,
    ):
        super().__init__(vocab_size, d_model, d_ff, *shape, **options)
        for layer in self.layers:
            for name in ("W_q", "W_k", "W_v", "W_o"):
                setattr(layer.attention, name, nn.Linear(d_model, d_model))
            layer.feed_forward = GPT2FeedForward(d_model, d_ff, activation)
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps
        self.output_projection = nn.Linear(d_model, vocab_size, bias=False)
        if tied:
            self.output_projection.weight = self.token_embedding.weight


def split_c_attn(weight: Tensor, bias: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Weight (D, D) and bias (D,) of W_q, W_k and W_v, as `nn.Linear` keeps them.

    They come from GPT-2's c_attn, weight (D, 3 D) and bias (3 D,): q, k, v side by side.
    """
    d_model = weight.size(0)
    return [(w.T, b) for w, b in zip(weight.split(d_model, 1), bias.split(d_model), strict=True)]


def translate(tensors: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """A state dict for `GPT2` from GPT-2's tensors by their names (without "transformer.")."""
    state = {
        "token_embedding.weight": tensors["wte.weight"],
        "pos_embedding.weight": tensors["wpe.weight"],
        "norm.weight": tensors["ln_f.weight"],
        "norm.bias": tensors["ln_f.bias"],
        "output_projection.weight": tensors.get("lm_head.weight", tensors["wte.weight"]),
    }
    for i in range(num_layers):
        theirs, ours = f"h.{i}.", f"layers.{i}."
        c_attn = tensors[theirs + "attn.c_attn.weight"], tensors[theirs + "attn.c_attn.bias"]
        for x, (weight, bias) in zip("qkv", split_c_attn(*c_attn), strict=True):
            state[f"{ours}attention.W_{x}.weight"] = weight
            state[f"{ours}attention.W_{x}.bias"] = bias
        for part, name in BLOCK.items():
            weight = tensors[f"{theirs}{part}.weight"]
            state[f"{ours}{name}.weight"] = weight.T if weight.dim() == 2 else weight
            state[f"{ours}{name}.bias"] = tensors[f"{theirs}{part}.bias"]
    return state


def fold_head(weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """A head (V, D) without bias that does the work of one with: fold_head(...) @ (n + 1)

    is weight @ (gain * n + shift) + bias, for every n (D,) that sums to 0. What a LayerNorm makes,
    before its own gain and shift (D,), does. `weight` is (V, D), `bias` (V,).
    """
    scaled = weight * gain
    constant = weight @ shift + bias
    return scaled - scaled.mean(dim=1, keepdim=True) + constant[:, None] / weight.size(1)


def to_gpt2(state: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """GPT-2's tensors, as `GPT2LMHeadModel` names them, from a state dict: the way back."""
    head, norm = state["output_projection.weight"], (state["norm.weight"], state["norm.bias"])
    if "output_projection.bias" in state:
        parts = (head, state["output_projection.bias"], *norm)
        head = fold_head(*(part.cpu().double() for part in parts)).to(head)
        norm = torch.ones_like(norm[0]), torch.ones_like(norm[1])
    tensors = {"wte.weight": state["token_embedding.weight"]}
    tensors |= {"wpe.weight": state["pos_embedding.weight"]}
    tensors |= dict(zip(("ln_f.weight", "ln_f.bias"), norm, strict=True))
    for i in range(num_layers):
        parts = {name: (f"layers.{i}.{ours}",) for name, ours in BLOCK.items()}
        parts["attn.c_attn"] = tuple(f"layers.{i}.attention.W_{x}" for x in "qkv")
        for name, ours in parts.items():
            weight = torch.cat([state[f"{part}.weight"] for part in ours])
            zeros = weight.new_zeros(len(weight) // len(ours))
            biases = [state.get(f"{part}.bias", zeros) for part in ours]
            tensors[f"h.{i}.{name}.weight"] = weight.T if weight.dim() == 2 else weight
            tensors[f"h.{i}.{name}.bias"] = torch.cat(biases)
    named = {PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}
    return named | {"lm_head.weight": head.contiguous()}
