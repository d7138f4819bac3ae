"""What a patient's part does in a very small case: a sentence, if it is wrong (notebook 05)."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .common import has_shape, raised, shape_or_type

HEADS, D_HEAD = 3, 4
MOST_KEYS, CHUNKS = 5, (2, 1, 2)
FAILED, NOTHING = " it raised ", "returns nothing: it must end in `return ...`"


class _Raised(Exception):
    """What an answer raised, as a sentence that says in which case."""


def first_look(model: nn.Module, part: str) -> str:
    """A sentence on what the part returns in a very small case, if that is wrong, or nothing."""
    look = {"attend": _sight, "append": _held, "new_cache": _made}[part]
    try:
        with torch.no_grad(), _case("In a very small case"):
            return look(model)
    except _Raised as error:
        return str(error)


@contextlib.contextmanager
def _case(case: str) -> Iterator[None]:
    try:
        yield
    except (NotImplementedError, _Raised):
        raise
    except Exception as error:
        what = raised(error).removeprefix("raised ")
        raise _Raised(f"{case}{FAILED}{what}. ") from error


def _sight(model: nn.Module) -> str:
    """A sentence on a query that looks at other keys than it should, or nothing."""
    for keys in range(1, MOST_KEYS + 1):
        for queries in range(1, keys + 1):
            # Equal scores, and a value of its own for each key: the result holds the weights.
            q, k = torch.zeros(1, HEADS, queries, keys), torch.full((1, HEADS, keys, keys), 2.0)
            own = copy.deepcopy(model.layers[0].attention)
            case = f"With {many(queries, 'query')} on {many(keys, 'key')}"
            with _case(case):
                found = own.attend(q, k, torch.eye(keys).expand(1, HEADS, -1, -1))
            if found is None:
                return f"`attend` {NOTHING}. "
            if not has_shape(found, q.shape):
                return ""
            for row, weights in enumerate(found[0, 0]):
                nowhere = bool(weights.isnan().any())
                if not nowhere and not torch.isclose(weights.sum(), torch.tensor(1.0)):
                    return ""
                looks = [] if nowhere else weights.nonzero()[:, 0].tolist()
                allowed = list(range(keys - queries + row + 1))
                if looks != allowed:
                    return (
                        f"{case}, query {row} looks at {_keys(looks)}; expected {_keys(allowed)}. "
                    )
    return ""


def _held(model: nn.Module) -> str:
    """A sentence on a cache that returns or counts other positions than it should, or nothing."""
    with _case("In `new_cache(1)`"):
        cache, fed = model.new_cache(1), []
    for chunk in CHUNKS:
        start, end = sum(fed), sum(fed) + chunk
        case = f"In an append of {many(chunk, 'position')} to {start or 'an empty cache'}"
        fed.append(chunk)
        k = torch.arange(start, end).view(1, 1, -1, 1).expand(1, HEADS, -1, D_HEAD) + 1.0
        after = _after(fed)
        for layer in range(model.num_layers):
            with _case(case):
                found = cache.append(layer, k, -k)
            if found is None:
                return f"`append` {NOTHING}, with all keys and all values. "
            if not isinstance(found, tuple | list) or len(found) != 2:
                return (
                    f"`append` returns {shape_or_type(found)}; expected two tensors: all keys, all "
                    "values. "
                )
            for what, held, sign in zip(("keys", "values"), found, (1, -1), strict=True):
                wanted = sign * torch.arange(1.0, end + 1).view(-1, 1).expand(1, HEADS, -1, D_HEAD)
                if has_shape(held, wanted.shape) and torch.equal(held, wanted):
                    continue
                return f"{after}, in layer {layer}, `append` returns {_what(held, what, end)}. "
        if cache.length != end:
            return f"{after}, length is {cache.length}; expected {end}. "
    return ""


def _after(fed: list[int]) -> str:
    """ "After appends of 2, 1 and 2 positions"."""
    *before, last = fed
    if not before:
        return f"After an append of {many(last, 'position')}"
    return f"After appends of {', '.join(map(str, before))} and {last} positions"


def _what(held: object, what: str, end: int) -> str:
    """What there is where all keys, or all values, of `end` positions should be."""
    if not isinstance(held, Tensor) or held.dim() != 4 or held.shape[3:] != (D_HEAD,):
        return f"{shape_or_type(held)} for the {what}"
    if held.shape[:2] != (1, HEADS):
        return f"{what} of shape {tuple(held.shape)}; expected {(1, HEADS, end, D_HEAD)}"
    others = {"keys": "values", "values": "keys"}
    numbers = (held if what == "keys" else -held)[0, 0, :, 0]
    positions, foreign = numbers - 1, (numbers < 0).nonzero()[:, 0].tolist()
    if foreign and torch.equal(numbers.abs(), torch.arange(end) + 1.0):
        which = "" if len(foreign) == end else f" of positions {foreign}"
        return f"the {others[what]}{which} where the {what} should be"
    if not positions.numel() or positions.min() < 0 or positions.max() >= end:
        return f"other numbers than the {what}"
    return f"the {what} of positions {positions.int().tolist()}; expected {list(range(end))}"


def _made(model: nn.Module) -> str:
    """A sentence on a model that makes no cache, or the wrong one, or nothing."""
    with _case("In `new_cache(2)`"):
        cache = model.new_cache(2)
    if cache is None:
        return f"`new_cache` {NOTHING}. "
    if isinstance(cache, type):
        return f"`new_cache` returns the class {cache.__name__}: call it, to make a cache. "
    if cache is model.new_cache(2):
        return "`new_cache` returned one and the same cache twice: two readers would share it. "
    if cache.batch_size != 2:
        return f"`new_cache(2)` returns a cache with batch_size {cache.batch_size}. "
    return ""


def many(number: int, what: str) -> str:
    several = {"query": "queries", "key": "keys", "position": "positions"}[what]
    return f"{number} {what if number == 1 else several}"


def _keys(keys: list[int]) -> str:
    if not keys:
        return "no key (its result is NaN)"
    return f"key{'s' * (len(keys) > 1)} {', '.join(map(str, keys))}"
