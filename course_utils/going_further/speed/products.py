"""Rows times a matrix, in the way that is fastest on this machine (chapter 07).

A decoding step multiplies one row with every matrix of the model. How a matrix lies in memory, and
which of PyTorch's routines reads it, changes the time by factors, and differently on each
processor: what is twice as fast on one is half as fast on the next. So the ways are timed here, on
the model's own matrices, one after the other as a token meets them. (A matrix that was just used is
still in the processor's cache: one matrix in a loop would time the cache.)

A prefill multiplies many rows, and what is fast for one is not always fast for them. So they have a
choice of their own, between the ways that can read the matrix as it was laid out for one row.

Shapes: N rows, D_in, D_out; a weight is (D_out, D_in), as in `nn.Linear`.
"""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.benchmark import timer

Product = Callable[..., Tensor]  # product(x, base): base + x @ weight.T; (x, out=y): written to y
Shape = tuple[int, int]

ENOUGH = 200_000_000  # bytes of weights that no processor's cache keeps
READ = 500_000_000  # bytes that each way reads while it is timed, or more
COPY_PAYS = 0.85  # a way that keeps a copy of the weights must take less than this of the others'
MANY = 32  # rows: from here on a product has a choice of its own, made with TIMED rows
TIMED = 128
CHOSEN: dict[tuple, dict[Shape, str]] = {}
CHOSEN_FOR_MANY: dict[tuple, str] = {}


def plain(weight: Tensor) -> Product:
    """One matrix product, as `nn.Linear` asks for it; the weight lies by rows or by columns."""
    columns = weight.T

    def product(x: Tensor, base: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        return torch.mm(x, columns, out=out) if base is None else torch.addmm(base, x, columns)

    return product


def in_parts(weight: Tensor) -> Product:
    """The rows of the weight cut into a part for each thread, or two: a batch of products.

    For one row x. Rows of the weight that are left over are a product of their own.
    """
    parts, ordinary = max(2, torch.get_num_threads()), plain(weight)
    even = weight.size(0) // parts * parts
    split, rest = weight[:even].view(parts, -1, weight.size(1)), weight[even:].T

    def product(x: Tensor, base: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        if x.size(0) != 1 or even == 0:
            return ordinary(x, base, out)
        y = out if base is None else base.expand(1, -1).clone()
        beta = 0 if base is None else 1
        column = x.T.expand(parts, -1, -1)
        y[:, :even].view(parts, -1, 1).baddbmm_(split, column, beta=beta)
        if even < y.size(1):
            y[:, even:].addmm_(x, rest, beta=beta)
        return y

    return product


def one_thread(of: Callable[[Tensor], Product]) -> Callable[[Tensor], Product]:
    """The same with one thread, for one row: to wake the others can cost more than they save."""

    def made(weight: Tensor) -> Product:
        product = of(weight)

        def alone(x: Tensor, base: Tensor | None = None, out: Tensor | None = None) -> Tensor:
            if x.size(0) != 1:
                return product(x, base, out)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                return product(x, base, out)
            finally:
                torch.set_num_threads(threads)

        return alone

    return made


def by_onednn(weight: Tensor, packed: Tensor | None = None) -> Product:
    """oneDNN's product, the one that PyTorch's compiler calls."""
    multiply = torch.ops.mkldnn._linear_pointwise
    stored = weight if packed is None else packed

    def product(x: Tensor, base: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        if base is not None and base.dim() == 1:
            return multiply(x, stored, base, "none", [], "")
        found = multiply(x, stored, None, "none", [], "")
        return out.copy_(found) if base is None else found.add_(base)

    return product


def onednn_packed(weight: Tensor) -> Product:
    """The same over a copy of the weight in the order that oneDNN likes best."""
    return by_onednn(weight, torch.ops.mkldnn._reorder_linear_weight(weight, 1))


def mkl_packed(weight: Tensor) -> Product:
    """MKL's product over a copy of the weight in the order that it likes best."""
    packed, ordinary = torch.ops.mkl._mkl_reorder_linear_weight(weight, 1), plain(weight)
    multiply = torch.ops.mkl._mkl_linear

    def product(x: Tensor, base: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        if x.size(0) != 1:
            return ordinary(x, base, out)
        found = multiply(x, packed, weight, None, 1)
        return out.copy_(found) if base is None else found.add_(base)

    return product


class Way(NamedTuple):
    """How a weight lies in memory, what multiplies with it, and whether that keeps a copy."""

    by_columns: bool
    of: Callable[[Tensor], Product]
    copies: bool = False


ALL = {
    "by rows": Way(False, plain),
    "by columns": Way(True, plain),
    "by rows, one thread": Way(False, one_thread(plain)),
    "by columns, one thread": Way(True, one_thread(plain)),
    "in parts": Way(False, in_parts),
    "oneDNN": Way(False, by_onednn),
    "oneDNN, packed": Way(False, onednn_packed, copies=True),
    "MKL, packed": Way(False, mkl_packed, copies=True),
}


@torch.no_grad()
def is_right(
    of: Callable[[Tensor], Product], dtype: torch.dtype, rows: int = 1, by_columns: bool = False
) -> bool:
    """Whether this build of PyTorch has the way for numbers of this kind, and computes it right.

    oneDNN and MKL are not everywhere, take few kinds of number, and are called by private names.
    """
    weight, x, bias = (torch.arange(n * m).view(n, m) for n, m in ((6, 4), (rows, 4), (1, 6)))
    expected, weight = (bias + x @ weight.T).to(dtype), weight.to(dtype)
    with contextlib.suppress(RuntimeError, AttributeError):
        product = of(weight.T.contiguous().T if by_columns else weight)
        bases = (base.to(dtype) for base in (bias[0], bias.expand(rows, -1)))
        return all(torch.equal(product(x.to(dtype), base), expected) for base in bases)
    return False


@cache
def ways(dtype: torch.dtype) -> dict[str, Way]:
    """Those that work here for one row of numbers of this kind, by name."""
    return {name: way for name, way in ALL.items() if is_right(way.of, dtype)}


@cache
def ways_for_many(dtype: torch.dtype, by_columns: bool) -> dict[str, Callable[[Tensor], Product]]:
    """Those that work here for several rows, over a weight that lies as given, by name."""
    every = {"plain": plain, "oneDNN": by_onednn}
    return {name: of for name, of in every.items() if is_right(of, dtype, 5, by_columns)}


def by_number(one: Product, many: Product) -> Product:
    """`many` for MANY rows and more, `one` for fewer."""

    def product(x: Tensor, base: Tensor | None = None, out: Tensor | None = None) -> Tensor:
        return (one if x.size(0) < MANY else many)(x, base, out)

    return product


@torch.no_grad()
def for_many(weight: Tensor, packed: Product | None = None) -> Product:
    """The fastest product for many rows: over the weight as it lies, or `packed`, if it is given.

    Measured once for each shape, layout, kind of number and number of threads, then remembered.
    """
    if weight.device.type != "cpu":
        return plain(weight)
    by_columns = not weight.is_contiguous()
    made = {name: of(weight) for name, of in ways_for_many(weight.dtype, by_columns).items()}
    if packed:
        made["packed"] = packed
    key = (weight.shape, by_columns, weight.dtype, torch.get_num_threads(), *made)
    if key not in CHOSEN_FOR_MANY:
        x, bias = weight.new_ones(TIMED, weight.size(1)), weight.new_zeros(weight.size(0))
        seconds = defaultdict(list)
        for _, (name, product) in itertools.product(range(5), made.items()):
            start = timer()
            product(x, bias)
            seconds[name].append(timer() - start)
        CHOSEN_FOR_MANY[key] = min(made, key=lambda name: min(seconds[name]))
    return made[CHOSEN_FOR_MANY[key]]


def choose(groups: Sequence[Sequence[Tensor]]) -> dict[Shape, str]:
    """The name of the fastest way for each shape among the matrices that one token meets.

    A group is the weights that are multiplied as one matrix, one below the other. Measured once for
    these shapes, kind of number and threads, then remembered. On a GPU, where the routines are
    others, all are "by rows".
    """
    shapes = [(sum(w.size(0) for w in group), group[0].size(1)) for group in groups]
    first = groups[0][0]
    key = (tuple(shapes), first.dtype, first.device.type, torch.get_num_threads())
    if key not in CHOSEN:
        best = dict.fromkeys(shapes, "by rows")
        if first.device.type == "cpu":
            times = relative_times([below(group) for group in groups])
            best = {shape: best_of(of_shape, first.dtype) for shape, of_shape in times.items()}
        CHOSEN[key] = best
    return CHOSEN[key]


def best_of(times: dict[str, float], dtype: torch.dtype) -> str:
    """The way that takes least time; one that keeps a copy only where that pays."""
    every = ways(dtype)
    return min(times, key=lambda name: times[name] / (COPY_PAYS if every[name].copies else 1))


def below(weights: Sequence[Tensor]) -> Tensor:
    """The weights (D_out, D_in) one below the other; one alone stays where it is."""
    return weights[0].detach() if len(weights) == 1 else torch.cat(list(weights)).detach()


@torch.no_grad()
def relative_times(weights: Sequence[Tensor]) -> dict[Shape, dict[str, float]]:
    """For each shape and way, the time of its products as a share of that "by rows".

    A ratio is taken within each round; these are medians.

    Ways that need the weights in another order than the rest are timed by themselves, beside "by
    rows", so that no more than one copy of the weights exists at a time.
    """
    every = ways(weights[0].dtype)
    weights = [weight.contiguous() for weight in enough(weights)]
    rounds = min(20, max(9, READ // sum(weight.nbytes for weight in weights)))
    as_stored = [n for n, way in every.items() if not (way.by_columns or way.copies)]
    columns = [n for n, way in every.items() if way.by_columns]
    found: dict[Shape, dict[str, float]] = defaultdict(dict)
    for names in (as_stored, columns, *([n] for n, way in every.items() if way.copies)):
        names = ["by rows", *(n for n in names if n != "by rows")]
        stored = [w.T.contiguous().T for w in weights] if names[1:] == columns else weights
        tasks = {n: [every[n].of(w) for w in stored] for n in names[1:]}
        tasks["by rows"] = [plain(weight) for weight in weights]
        for shape, seconds in times_by_shape(tasks, weights, rounds).items():
            by_rows = np.array(seconds["by rows"])
            found[shape] |= {n: float(np.median(seconds[n] / by_rows)) for n in names}
    return found


def enough(weights: Sequence[Tensor]) -> list[Tensor]:
    """The last of the weights (the vocabulary's, the largest), and of the others from the first on
    as many as it takes to overflow every cache."""
    taken, size = [], weights[-1].nbytes
    shapes = {weight.shape for weight in weights[:-1]}
    for weight in weights[:-1]:
        if size < ENOUGH or weight.shape in shapes:
            taken.append(weight)
            size += weight.nbytes
            shapes.discard(weight.shape)
    return [*taken, weights[-1]]


def times_by_shape(
    tasks: dict[str, list[Product]], weights: Sequence[Tensor], rounds: int
) -> dict[Shape, dict[str, list[float]]]:
    """Seconds that each way takes for all weights of a shape, in each round.

    In a round each way goes twice through all the weights, as two tokens would, and the second
    counts.
    """
    rows = [torch.randn(1, weight.size(1), dtype=weight.dtype) for weight in weights]
    bases = [torch.zeros(1, weight.size(0), dtype=weight.dtype) for weight in weights]
    seconds: dict[Shape, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for name, products in tasks.items():
            for _ in range(2):
                spent: dict[Shape, float] = defaultdict(float)
                for product, weight, x, base in zip(products, weights, rows, bases, strict=True):
                    start = timer()
                    product(x, base)
                    spent[tuple(weight.shape)] += timer() - start
            for shape, total in spent.items():
                seconds[shape][name].append(total)
    return seconds
