"""The course's caches, and what `kv_evaluate` says of one whose source has been changed.

Only the classes that hold a cache are changed (`mutants` says how), and only they are judged.
"""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from helpers import SMALL, cases_for, small_model
from mutants import Mutant, mutants
from torch import nn

from course_utils.evaluation import kv_evaluate
from course_utils.transformer import DecoderOnlyTransformer

# With two layers, "all but the last" would be the first.
SHAPE = SMALL | {"num_layers": 3}


def like(reference: nn.Module, model_class: type[nn.Module]) -> nn.Module:
    model = model_class(**SHAPE, dropout=0.0).to(reference.dtype)
    model.load_state_dict(reference.state_dict())
    return model.eval()


def with_cache(name: str, module: ModuleType, reference: nn.Module) -> nn.Module:
    methods = {"new_cache": lambda model, batch_size: getattr(module, name)(model, batch_size)}
    return like(reference, type(f"With{name}", (DecoderOnlyTransformer,), methods))


def paged(module: ModuleType, reference: nn.Module) -> nn.Module:
    def new_cache(model: nn.Module, batch_size: int) -> object:
        tables = [module.Table() for _ in range(batch_size)]
        return module.PagedRows(module.PagedCache(model, num_blocks=100, block_size=4), tables)

    return like(reference, type("Paged", (module.PagedTransformer,), {"new_cache": new_cache}))


class RightCache(NamedTuple):
    """A module of the package, its classes that hold a cache, and how a model gets them."""

    module: str
    classes: str
    model_of: Callable[[ModuleType, nn.Module], nn.Module]  # module changed, weights to have

    @property
    def file(self) -> str:
        return self.module.rpartition(".")[2]

    @property
    def source(self) -> str:
        path = importlib.import_module(f"course_utils.{self.module}").__file__
        return Path(path).read_text(encoding="utf-8")

    def mutants(self) -> list[Mutant]:
        return list(mutants(self.source, self.classes.split()))


PADDED = "LeftPaddedCache LeftPaddedAttention LeftPaddedTransformer"
CACHES = [
    RightCache("kv_cache", "GrowingCache", partial(with_cache, "GrowingCache")),
    RightCache("kv_cache", "PreallocatedCache", partial(with_cache, "PreallocatedCache")),
    RightCache("left_padding", PADDED, lambda new, model: like(model, new.LeftPaddedTransformer)),
    RightCache("going_further.serving.paged_cache", "PagedCache PagedRows", paged),
    RightCache("going_further.speed.fast_decode", "RowCache", lambda new, model: new.fast(model)),
]


def loaded(name: str, source: str) -> ModuleType:
    """The source as a module beside the package's module of that name."""
    module = ModuleType(f"course_utils.{name}_mutant")
    module.__package__ = module.__name__.rpartition(".")[0]
    sys.modules[module.__name__] = module
    exec(compile(source, module.__name__, "exec"), vars(module))
    return module


def verdict(cache: RightCache, source: str, seeds: int = 1) -> tuple[str, str]:
    """What is said of a cache with this source, and the first problem."""
    for seed in range(seeds):
        reference, word = small_model(seed=seed, dtype=torch.float32, **SHAPE), "does not load"
        try:
            model, word = cache.model_of(loaded(cache.module, source), reference), "refused"
            report = kv_evaluate(model, cases_for(reference), stop=True)
        except Exception as error:
            return word, f"raised {type(error).__name__}: {error}"
        if not report.all_passed:
            return "refused", (report.problems or ["nothing was judged"])[0]
    return "accepted", ""


def numbered(number: int, source: str, seeds: int) -> tuple[str, str]:
    """The verdict on the cache with that number in `CACHES`."""
    return verdict(CACHES[number], source, seeds)
