"""What the check cell of counting bytes calls (chapter 07)."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import torch
from hypothesis import strategies as st
from torch import nn

from ....checks.common import verdict
from ....checks.inputs import Call
from ....checks.judged import Answer, calling, judge
from ....transformer import DecoderOnlyTransformer
from ..roofline import cache_bytes, weight_bytes

SIZES = ("vocab_size", "d_model", "d_ff", "num_layers", "max_seq_len", "num_heads")
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Counted:
    """A model of certain sizes, and how many positions are in its cache."""

    sizes: tuple[int, ...]
    dtype: torch.dtype
    tokens: int
    frozen: bool = False

    def model(self) -> DecoderOnlyTransformer:
        model = DecoderOnlyTransformer(*self.sizes, dropout=0.0).to(self.dtype)
        return model.requires_grad_(not self.frozen).train(not self.frozen)

    def __str__(self) -> str:
        sizes = ", ".join(f"{n}={size}" for n, size in zip(SIZES, self.sizes, strict=True))
        model = self.model()
        return (
            f"bytes_per_token(model, {self.tokens}), for a model of {sizes} in {self.dtype}"
            f"{' that is not trained' * self.frozen} (all its parameters: {_all(model):,} bytes; "
            f"keys and values: {cache_bytes(model, self.tokens):,}),"
        )


def _counting(function: Callable[[nn.Module, int], int]) -> Answer:
    def answer(case: Counted) -> int:
        model = case.model()
        before = [(x.detach().clone(), x.requires_grad) for x in model.parameters()]
        training = model.training
        found = calling(lambda tokens: function(model, tokens))(Call("", (case.tokens,)))
        for (name, weight), (was, learns) in zip(model.named_parameters(), before, strict=True):
            if weight.dtype != was.dtype or not torch.equal(weight, was):
                raise AssertionError(f"changes the model: its {name} is not what it was")
            if weight.requires_grad != learns:
                raise AssertionError(f"changes the model: requires_grad of its {name}")
        if model.training != training:
            raise AssertionError(f"changes the model: its `training` is {model.training} now")
        if found is None:
            raise AssertionError("is None: the function returns nothing")
        if not isinstance(found, Integral):
            raise AssertionError(f"is {found!r}, a {type(found).__name__}; bytes are an int")
        return int(found)

    return answer


@st.composite
def _models(draw: st.DrawFn) -> Counted:
    size = st.integers(1, 6)
    vocab_size, d_head, d_ff, max_seq_len, num_heads = (draw(size) for _ in range(5))
    sizes = (vocab_size, num_heads * d_head, d_ff, draw(st.integers(1, 3)), max_seq_len, num_heads)
    tokens = draw(st.integers(0, max_seq_len))
    return Counted(sizes, draw(st.sampled_from(FLOATS)), tokens, draw(st.booleans()))


def _all(model: nn.Module) -> int:
    return sum(p.nbytes for p in model.parameters())


def _right(model: nn.Module, tokens: int) -> int:
    return weight_bytes(model) + cache_bytes(model, tokens)


def _rows(model: nn.Module) -> tuple[int, int]:
    return model.token_embedding.weight[0].nbytes, model.pos_embedding.weight[0].nbytes


ONE_ROW = "For one token, only one row is looked up in an embedding."
WRONG_COUNTS = [
    (lambda m, t: _all(m) + cache_bytes(m, t), ONE_ROW),
    (lambda m, t: _right(m, t) + m.token_embedding.weight[1:].nbytes, f"{ONE_ROW} In both."),
    (lambda m, t: _right(m, t) + m.pos_embedding.weight[1:].nbytes, f"{ONE_ROW} In both."),
    (
        lambda m, t: _right(m, t) - sum(_rows(m)),
        "One row of each embedding is read, too: the token's, and its position's.",
    ),
    (lambda m, t: weight_bytes(m), "The keys and values of all positions are read too."),
    (
        lambda m, t: _right(m, t) - cache_bytes(m, t) // 2,
        "Each position keeps a key and a value, in every layer.",
    ),
    (
        lambda m, t: weight_bytes(m) + cache_bytes(m, t) // m.num_layers,
        "Every layer keeps keys and values of its own.",
    ),
    (
        lambda m, t: weight_bytes(m) + cache_bytes(m, t) // m.num_heads,
        "Every head keeps keys and values of its own.",
    ),
    (
        lambda m, t: weight_bytes(m) + cache_bytes(m, 1),
        "Those are the keys and values of one position; all `tokens` positions are read.",
    ),
    (
        lambda m, t: weight_bytes(m) + cache_bytes(m, t + 1),
        "That is one position more than the cache holds.",
    ),
    (lambda m, t: _right(m, t) // m.dtype.itemsize, "Those are numbers. In bytes, please."),
    (
        lambda m, t: _right(m, t) // m.dtype.itemsize * 4,
        "A number does not always have 4 bytes: ask the tensor.",
    ),
    (
        lambda m, t: weight_bytes(m) + cache_bytes(m, t) // m.dtype.itemsize * 4,
        "A number in the cache has as many bytes as one of the embedding, not always 4.",
    ),
    (
        lambda m, t: weight_bytes(m) + cache_bytes(m, t) // m.dtype.itemsize,
        "The weights are in bytes, the keys and values in numbers: `element_size()` is missing.",
    ),
    (
        lambda m, t: _right(m, t) - sum(p.nbytes for n, p in m.named_parameters() if "bias" in n),
        "The biases are read, too.",
    ),
    (
        lambda m, t: _right(m, t) - sum(p.nbytes for p in m.parameters() if not p.requires_grad),
        "A parameter is read whether it is trained (`requires_grad`) or not.",
    ),
]


@verdict
def check_bytes_per_token(bytes_per_token: Callable[[nn.Module, int], int]) -> str:
    """Chapter 07, exercise 1. Returns a verdict; raises AssertionError on a wrong count."""
    judge(
        _counting(bytes_per_token),
        _counting(_right),
        _models(),
        [(_counting(wrong), advice) for wrong, advice in WRONG_COUNTS],
        first=[
            Counted((20, 12, 24, 2, 16, 3), torch.float32, 7),
            Counted((50, 16, 64, 3, 32, 2), torch.float16, 1),
            Counted((20, 4, 4, 1, 2100, 1), torch.float32, 2099),
        ],
        advice="Of either embedding one row is read, and of all else everything.",
    )
    return "bytes_per_token is right, for models and numbers of all sizes."
