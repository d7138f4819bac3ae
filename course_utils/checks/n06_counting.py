"""What the check cell of counting operations calls (notebook 06, exercise 3)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from numbers import Real

import torch
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..transformer import DecoderOnlyTransformer, fuse_attention
from .common import verdict
from .judged import judge
from .n06_stop_watch import asked, kind

SEQUENCE = 12


@dataclass(frozen=True)
class _Pass:
    """One forward pass of a model of some sizes, over tokens that are new."""

    num_layers: int = 2
    d_model: int = 12
    d_ff: int = 24
    vocab_size: int = 20
    num_heads: int = 2
    new: int = 1
    stored: int = 0
    fused: bool = False
    dtype: torch.dtype = torch.float32
    room: int = SEQUENCE

    def __str__(self) -> str:
        sizes = ", ".join(
            f"{name}={getattr(self, name)}"
            for name in ("vocab_size", "d_model", "d_ff", "num_layers", "num_heads")
        )
        return f"operations(model, {self.new}, {self.looks_at}), for a model with {sizes},"

    @property
    def looks_at(self) -> int:
        return self.new + self.stored


@cache
def _model(case: _Pass) -> DecoderOnlyTransformer:
    sizes = (case.vocab_size, case.d_model, case.d_ff, case.num_layers, case.room)
    model = DecoderOnlyTransformer(*sizes, num_heads=case.num_heads, dropout=0.0)
    return model.to(case.dtype).eval()


@cache
def _counted(case: _Pass) -> int:
    """What PyTorch counts; what one token that looks at no key takes follows from two passes."""
    if case.looks_at == 0:
        return 2 * _counted(replace(case, stored=0)) - _counted(replace(case, stored=1))
    model, past_kv = _model(case), None
    with torch.no_grad():
        if case.stored:
            _, past_kv = model(torch.ones(1, case.stored, dtype=torch.long), use_cache=True)
        with FlopCounterMode(display=False) as counter:
            model(torch.ones(1, case.new, dtype=torch.long), past_kv=past_kv, use_cache=True)
    return counter.get_total_flops()


@st.composite
def _passes(draw: st.DrawFn) -> _Pass:
    num_heads, new = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    return _Pass(
        num_layers=draw(st.integers(1, 6)),
        d_model=num_heads * draw(st.integers(1, 5)),
        d_ff=draw(st.integers(1, 30)),
        vocab_size=draw(st.integers(2, 30)),
        num_heads=num_heads,
        new=new,
        stored=draw(st.integers(-1 if new == 1 else 0, 6)),
        fused=draw(st.booleans()),
        dtype=draw(st.sampled_from((torch.float32, torch.float64))),
    )


def _operations(operations: Callable[[nn.Module, int, int], int]) -> Callable[[_Pass], int]:
    def answer(case: _Pass) -> int:
        model = fuse_attention(_model(case)) if case.fused else _model(case)
        found = asked(operations, model, case.new, case.looks_at)
        if isinstance(found, bool) or not isinstance(found, Real):
            raise AssertionError(f"gives {kind(found)}, expected a number")
        return int(found) if found == int(found) else found

    return answer


def _miscounted(change: Callable[[_Pass, nn.Module], float], factor: int = 2) -> Callable:
    """What comes out if so many weights too many are counted for each new token."""
    return lambda case: _counted(case) + factor * case.new * change(case, _model(case))


def _numbers_of(*kinds: type[nn.Module], matrices: bool = True) -> Callable:
    """How many numbers are in the matrices, or else in the vectors, of modules of these kinds."""

    def count(_: _Pass, model: nn.Module) -> int:
        parts = [m for m in model.modules() if isinstance(m, kinds)]
        numbers = [p for m in parts for p in m.parameters(recurse=False)]
        return sum(p.numel() for p in numbers if (p.dim() > 1) == matrices)

    return count


def _sum(*counts: Callable) -> Callable:
    return lambda case, model: sum(count(case, model) for count in counts)


def _of_sizes(formula: Callable[[int, int, int, int], int]) -> Callable[[_Pass], int]:
    """What a formula gives that is made of Q, K, P and L * D."""

    def count(case: _Pass) -> int:
        width = case.num_layers * case.d_model
        weights = _counted(case) // (2 * case.new) - 2 * width * case.looks_at
        return formula(case.new, case.looks_at, weights, width)

    return count


def _other_weights(number: Callable[[nn.Module], int]) -> Callable[[_Pass], int]:
    """What comes out if P is something else of the model."""

    def count(case: _Pass) -> int:
        weights = number(_model(case))
        return _of_sizes(lambda q, k, _, width: 2 * q * (weights + 2 * width * k))(case)

    return count


def _linears(parts: Iterable[nn.Module]) -> list[nn.Linear]:
    return [part for part in parts if isinstance(part, nn.Linear)]


def _all_weights(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if hasattr(m, "weight"))


MATRICES = "P is the weights of the matrices, which are in the nn.Linear modules."
TABLES = _numbers_of(nn.Embedding)
BIASES = _numbers_of(nn.Linear, matrices=False)
VECTORS = _numbers_of(nn.Linear, nn.LayerNorm, matrices=False)
COUNTS = [
    (
        lambda case: _counted(case) // 2,
        "That is half: each weight takes a multiplication and an addition.",
    ),
    (
        _miscounted(_sum(TABLES, VECTORS)),
        f"All parameters are counted. Embeddings are looked up and biases added: {MATRICES}",
    ),
    (
        _miscounted(TABLES),
        f"The embeddings are counted. They are looked up: {MATRICES}",
    ),
    (
        _miscounted(VECTORS),
        f"Biases and norms are counted. They are not matrices: {MATRICES}",
    ),
    (_miscounted(BIASES), f"The biases are counted. They are added: {MATRICES}"),
    (_miscounted(_sum(TABLES, BIASES)), f"Embeddings and biases are counted: {MATRICES}"),
    (
        _miscounted(lambda case, _: -2 * case.num_layers * case.d_model * case.looks_at),
        "Attention itself is not counted: each query meets all keys, in each layer.",
    ),
    (
        _miscounted(lambda case, _: 2 * (1 - case.num_layers) * case.d_model * case.looks_at),
        "Attention is counted for one layer; there are num_layers.",
    ),
    (
        _miscounted(lambda case, _: -case.num_layers * case.d_model * case.looks_at),
        "Attention is counted once for each pair of query and key. It takes D for the score, and D "
        "for the value.",
    ),
    (
        _miscounted(
            lambda case, _: 2 * case.num_layers * case.d_model * (case.new - case.looks_at)
        ),
        "Each query meets all K keys, the cached ones too, and not the Q new ones alone.",
    ),
    (
        lambda case: _counted(replace(case, new=1, stored=case.looks_at - 1)) * case.looks_at,
        "With a cache only the Q new tokens go through the matrices, not all K.",
    ),
    (
        lambda case: _counted(replace(case, new=1, stored=case.looks_at - 1)),
        "That is for one token. All Q of them go through the matrices, and meet all keys.",
    ),
    (
        _miscounted(
            lambda case, _: (
                2 * case.num_layers * case.d_model * case.looks_at * (case.num_heads - 1)
            )
        ),
        "The heads are counted again: D numbers are those of all heads together.",
    ),
    (
        _of_sizes(lambda q, k, weights, width: 2 * q * weights + 2 * width * k),
        "2·Q multiplies the whole bracket: P, and 2·L·D·K too. Is a parenthesis missing?",
    ),
    (
        _of_sizes(lambda q, k, weights, width: 2 * k * (weights + 2 * width * q)),
        "Q and K are exchanged: the Q new tokens go through the matrices, and meet K keys.",
    ),
    (
        _other_weights(_all_weights),
        f"The weights of all modules are counted, embeddings and norms too: {MATRICES}",
    ),
    (
        _other_weights(lambda model: sum(m.out_features for m in _linears(model.modules()))),
        "A matrix has in_features * out_features weights: `weight.numel()` counts them.",
    ),
    (
        _other_weights(lambda model: sum(m.weight.numel() for m in _linears(model.children()))),
        "`children()` goes one level deep, where only the output projection is a matrix; "
        "`modules()` goes through all levels.",
    ),
    (
        _miscounted(lambda case, _: -case.vocab_size * case.d_model),
        "The output projection is a matrix, too.",
    ),
]


@verdict
def check_operations(operations: Callable[[nn.Module, int, int], int]) -> str:
    """Notebook 06, exercise 3. Returns a verdict; raises AssertionError on a wrong count."""
    first = [_Pass(new=new, stored=stored) for new, stored in ((6, 0), (1, 9), (3, 4), (1, -1))]
    first.append(_Pass(d_model=128, d_ff=4096, vocab_size=2000, new=500, room=500))  # over 2**31
    judge(_operations(operations), _counted, _passes(), COUNTS, first, number=25)
    return "operations is right: it agrees with what PyTorch counts, cached and uncached."
