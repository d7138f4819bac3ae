"""The cache layers of `transformers`, and what the course says of one with a small mistake in it.

`mutants` changes a method of a layer in one place at a time. Such a method takes the place of the
library's for the time of one judgement, of each small model that has the layer.
"""

import ast
import contextlib
import csv
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import CellType, FunctionType
from typing import NamedTuple

from mutants import Mutant, mutants

from course_utils.evaluation import kv_evaluate
from course_utils.going_further import wild
from course_utils.going_further.wild.installed import module

ROOM = 24
FEWER = {"llama": 1, "mistral": 1, "mamba2": 1}  # layers, of types that have one kind of them
LOUD = {"name", "attribute", "call", "keyword argument"}  # most of these raise an error at once
LINE = re.compile(r"line (\d+): ")
EQUIVALENT = Path(__file__).resolve().parents[2] / "data" / "equivalent_layers.csv"


class Layer(NamedTuple):
    """A class of the library, its methods that are changed, and who uses it: types and caches."""

    name: str
    methods: str
    users: str

    @property
    def kind(self) -> type:
        return getattr(module("cache_utils"), self.name)

    @property
    def source(self) -> str:
        return inspect.getsource(self.kind)

    def mutants(self) -> list[Mutant]:
        """All but those in lines that a processor never reaches."""
        methods, never = (
            [f"{self.name}.{some}" for some in self.methods.split()],
            elsewhere(self.source),
        )
        found = mutants(self.source, methods)
        return [some for some in found if int(LINE.match(some.what)[1]) not in never]


def elsewhere(source: str) -> set[int]:
    """The lines of the handlers of NotImplementedError."""
    handlers = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler))
    never = (h for h in handlers if h.type and ast.unparse(h.type) == "NotImplementedError")
    return {line for h in never for line in range(h.lineno, h.end_lineno + 1)}


SIZES = "get_mask_sizes get_seq_length"
LAYERS = [
    Layer("DynamicLayer", f"lazy_initialization update {SIZES} crop batch_select_indices", "llama"),
    Layer("CacheLayerMixin", "reorder_cache", "llama llama:static"),
    Layer(
        "DynamicSlidingWindowLayer",
        f"__init__ activate_past_recording lazy_initialization update {SIZES} crop",
        "mistral mistral:recording",
    ),
    Layer("StaticLayer", f"__init__ lazy_initialization update {SIZES}", "llama:static"),
    Layer("StaticSlidingWindowLayer", f"__init__ update {SIZES}", "mistral:static gemma2:static"),
    Layer(
        "LinearAttentionLayer",
        "lazy_initialization update_conv_state update_recurrent_state",
        "lfm2 mamba2 lfm2:recording",
    ),
    Layer("LinearAttentionCacheLayerMixin", "__init__ reorder_cache crop", "lfm2:recording mamba2"),
]


@contextlib.contextmanager
def replaced(layer: Layer, source: str) -> Iterator[None]:
    """Inside, the library's class has the methods of this source, which defines the same class."""
    kind, names = layer.kind, dict(vars(module("cache_utils")))
    exec(compile(source, layer.name, "exec"), names)
    before = {name: vars(kind)[name] for name in layer.methods.split()}
    try:
        for name, old in before.items():
            setattr(kind, name, moved(vars(names[layer.name])[name], old, kind))
        yield
    finally:
        for name, old in before.items():
            setattr(kind, name, old)


def moved(new: FunctionType, old: FunctionType, kind: type) -> FunctionType:
    """A method with the names of the old one's module, whose `super()` is that of `kind`."""
    cells = tuple(CellType(kind) for _ in new.__code__.co_freevars)
    return FunctionType(new.__code__, old.__globals__, new.__name__, new.__defaults__, cells)


def judged(user: str, seed: int = 0) -> tuple[str, str]:
    """ "accepted" or "refused", and the first problem; "raised" if no report came of it."""
    name, _, cache = user.partition(":")
    model = wild.adapted(name, FEWER.get(name), seed, cache or "own", ROOM)
    try:
        wild.first_cache(model)
        measured = wild.measure(model)
        model.pads = measured.pads
        report = kv_evaluate(model, [], stop=True, tolerance=measured.tolerance)
    except Exception as error:
        return "raised", f"{type(error).__name__}: {error}"
    if report.all_passed:
        return "accepted", ""
    return "refused", (report.problems or ["nothing was judged"])[0]


def verdict(layer: Layer, source: str, seeds: int = 1) -> tuple[str, str]:
    """What is said of a layer with this source: "accepted" if all its users accept it."""
    for user in layer.users.split():
        for seed in range(seeds):
            with replaced(layer, source):
                word, problem = judged(user, seed)
            if word != "accepted":
                return word, f"{user}: {problem}"
    return "accepted", ""


def numbered(number: int, source: str, seeds: int) -> tuple[str, str]:
    """The verdict on the layer with that number in `LAYERS`."""
    return verdict(LAYERS[number], source, seeds)


@functools.cache
def equivalent(layer: str) -> dict[str, str]:
    """Changes of a layer that make no difference, and why: what was looked into by hand."""
    with EQUIVALENT.open(encoding="utf-8", newline="") as file:
        return {row["what"]: row["reason"] for row in csv.DictReader(file) if row["layer"] == layer}
