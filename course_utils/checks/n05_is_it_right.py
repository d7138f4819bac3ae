"""What the check cells of "is it right?" call: a report, moved rows (notebook 05)."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..attention import KeyValueStore
from ..evaluation import Report
from ..kv_cache import GrowingCache
from ..transformer import DecoderOnlyTransformer
from .common import is_stub, raised, shape_or_type, verdict
from .elsewhere import follows_its_device
from .judged import judge

HEADS, D_HEAD = 2, 3
LAYER = 100  # more than there are rows
EXCHANGED, OTHERS = "keys and values exchanged", "other numbers"

Result = TypeVar("Result")


def check_report(report: Report) -> None:
    """Raise AssertionError, with the first problem found, unless every case passed."""
    if not report.all_passed:
        problem = (report.problems or ["no check was run"])[0]
        raise AssertionError(
            f"{report.title}: {report.num_passed} of {len(report.cases)} cases passed. {problem}"
        )


@dataclass(frozen=True)
class _Moves:
    """A cache is filled, its rows are reordered, perhaps twice; after each, a position comes."""

    rows: int
    num_layers: int
    orders: tuple[tuple[int, ...], ...]
    positions: int = 2
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        moves = ", then ".join(f"reorder({list(order)})" for order in self.orders)
        counts = (self.rows, "row"), (self.num_layers, "layer"), (self.positions, "position")
        rows, layers, positions = (f"{n} {what}{'s' * (n != 1)}" for n, what in counts)
        return f"{moves}, on {rows} of {positions} in {layers}:"


@st.composite
def _moves(draw: st.DrawFn) -> _Moves:
    rows = now = draw(st.integers(1, 4))
    orders = []
    for _ in range(draw(st.integers(1, 2))):
        orders.append(tuple(draw(st.lists(st.integers(0, now - 1), min_size=1, max_size=7))))
        now = len(orders[-1])
    dtype = draw(st.sampled_from((torch.float32, torch.float64)))
    return _Moves(rows, draw(st.integers(1, 5)), tuple(orders), draw(st.integers(0, 3)), dtype)


def _model(num_layers: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    return DecoderOnlyTransformer(5, HEADS * D_HEAD, 4, num_layers, 16, HEADS, 0.0).to(dtype)


def _append(cache: KeyValueStore, case: _Moves, rows: int, positions: int) -> dict[str, Tensor]:
    """Append new positions in each layer; their numbers tell row and layer, those of values less.

    Returns all keys and all values by name.
    """
    held = {}
    for layer in range(case.num_layers):
        shape = (rows, HEADS, positions, D_HEAD)
        number = LAYER * layer + 4 / 3  # one that float32 rounds
        k = torch.arange(rows, dtype=case.dtype).view(-1, 1, 1, 1).expand(shape) + number
        keys, values = cache.append(layer, k, -k)
        held |= {f"keys of layer {layer}": keys, f"values of layer {layer}": values}
    return held


def _played(cache_class: type, case: _Moves) -> dict[str, object]:
    model = _model(case.num_layers, case.dtype)
    cache, other = cache_class(model, case.rows), cache_class(model, case.rows)
    for one in (cache, other):
        _append(one, case, case.rows, case.positions)
    held = {}
    for order in case.orders:
        rows = torch.tensor(order)
        _sentence("it", lambda rows=rows: cache.reorder(rows))
        if rows.tolist() != list(order):
            raise AssertionError("changes the tensor of rows that came in")
        keys, values = (getattr(cache, name, None) for name in ("keys", "values"))
        if keys is not None and keys is values:
            raise AssertionError(
                "makes `self.values` the same as `self.keys`. Each of them keeps its own tensors"
            )
        if not isinstance(cache.batch_size, int) or cache.batch_size != len(order):
            raise AssertionError(
                f"batch_size is {cache.batch_size!r} afterwards, expected {len(order)}"
            )
        after = "keys and values, in all layers, have to have the new rows: a new position"
        held = _sentence(after, lambda rows=rows: _append(cache, case, len(rows), 1))
    beside = _append(other, case, case.rows, 1)
    held |= {f"{name}, in another cache that nobody reordered": x for name, x in beside.items()}
    return held | {"length": cache.length}


def _sentence(what: str, call: Callable[[], Result]) -> Result:
    """What the call returns; an error in it becomes a sentence about `what`."""
    try:
        return call()
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(f"{what} {raised(error)}") from error


def _moved(cache_class: type) -> Callable[[_Moves], dict[str, object]]:
    """The answer to moves: for all keys and values, which of its first rows each row holds now."""

    def answer(case: _Moves) -> dict[str, object]:
        found, right = _played(cache_class, case), _played(GrowingCache, case)
        return {name: _rows(held, right[name]) for name, held in found.items()}

    return answer


def _rows(held: object, right: object) -> object:
    """Which of the first rows each row of a tensor holds, or what else is wrong with it."""
    if not isinstance(right, Tensor):
        return held
    if not isinstance(held, Tensor) or held.shape != right.shape or held.dtype != right.dtype:
        return f"{shape_or_type(held)} {getattr(held, 'dtype', '')}".strip()
    rows, expected = ((x[:, 0, 0, 0].abs() - 1) % LAYER for x in (held, right))
    if torch.equal(held, right) or rows.int().tolist() != expected.int().tolist():
        return rows.int().tolist()
    return EXCHANGED if torch.equal(held[:, :, 0], -right[:, :, 0]) else OTHERS


class _Wrong(GrowingCache):
    """Reorders part of what there is; the rest keeps its rows."""

    keys_move = values_move = True
    layers = range(9)

    def reorder(self, rows: Tensor) -> None:
        stay = torch.arange(self.batch_size)
        for layer in range(len(self.keys)):
            moves = layer in self.layers
            self.keys[layer] = self.keys[layer][rows if moves and self.keys_move else stay]
            self.values[layer] = self.values[layer][rows if moves and self.values_move else stay]
        self.batch_size = len(rows)


def _with(**attributes: object) -> Callable[[_Moves], dict[str, object]]:
    return _moved(type("Wrong", (_Wrong,), attributes))


MOVES = [
    (_with(layers=()), "No row moves."),
    (_with(layers=(0,)), "Only the first layer is reordered: all of them have to be."),
    (_with(values_move=False), "The keys move, and the values stay."),
    (_with(keys_move=False), "The values move, and the keys stay."),
]


DIFFERENCE = re.compile(
    r"is (?P<found>\[[^]]*\]|'[^']*'), expected (?P<rows>\[[^]]*\]) "
    r"\((?P<what>keys|values) (?P<where>of layer [^)]*)\)"
)


def _subject_first(difference: re.Match[str]) -> str:
    """What is wrong with the keys or the values of a layer, as a sentence."""
    found, what = difference["found"].strip("'"), difference["what"]
    subject = f"the {what} {difference['where']}"
    if found == EXCHANGED:
        return f"{subject} are {'keys' if what == 'values' else 'values'}"
    if found == OTHERS:
        return f"{subject} are other numbers than those that were appended there"
    if found.startswith("["):
        return f"{subject} hold the rows {found}, expected {difference['rows']}"
    has = "have shape and dtype" if found.startswith("(") else "are of type"
    return f"{subject} {has} {found}, expected the rows {difference['rows']} with all positions"


@verdict
def check_reorder(cache_class: type) -> str:
    """Notebook 05, exercise 5. Returns a verdict; raises AssertionError on a wrong reorder."""
    first = _Moves(3, 2, ((2, 0, 1),)), _Moves(3, 2, ((2, 0, 0, 1, 2),))
    try:
        judge(_moved(cache_class), _moved(GrowingCache), _moves(), MOVES, first, number=30)
    except AssertionError as error:
        raise AssertionError(DIFFERENCE.sub(_subject_first, str(error))) from None
    follows_its_device(
        lambda model, device: _reordered_there(cache_class, model, device), "reorder", _model(2)
    )
    return f"{cache_class.__name__}.reorder is right: rows move, die and multiply, in every layer."


def _reordered_there(cache_class: type, model: nn.Module, device: torch.device) -> Tensor:
    cache = cache_class(model, 2)
    k = torch.empty(2, HEADS, 3, D_HEAD, device=device)
    cache.append(0, k, k)
    cache.append(1, k, k)
    cache.reorder(torch.zeros(2, dtype=torch.long, device=device))
    return torch.cat(cache.append(1, k, k))
