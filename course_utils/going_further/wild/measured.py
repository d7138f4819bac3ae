"""What is a property of a model, and no fault of its cache: measured before it is judged.

Nothing here knows a model by its name. Is its uncached pass the same when it is run again? Does a
token see later ones? Does it compute a part in float32, whatever its dtype, and what does that
cost? Are padded rows right without a cache?

Shapes: B rows, T tokens, V words.
"""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ...evaluation import copied, on_device, precise_copy
from ...evaluation.lane import EXACT, MARGIN, NUDGES, nudged, rounding
from ...evaluation.model import uncached
from ...evaluation.texts import texts
from .adapter import Adapted, told
from .caches import QUANTISED, new_past

FLOAT32 = torch.finfo(torch.float32).eps
LENGTHS = (1, 2, 5, 9, 17, 33, 50)
MOVED = {
    "_to_copy", "view", "expand", "cat", "clone", "copy_", "slice", "select", "transpose", "t",
    "permute", "unsqueeze", "squeeze", "split", "reshape", "_unsafe_view", "index", "full",
    "full_like", "zeros_like", "ones_like", "where", "masked_fill", "detach", "stack", "repeat",
    "unbind", "empty_like", "scalar_tensor", "lift_fresh", "alias", "zeros", "new_zeros", "fill_",
    "as_strided", "new_empty", "empty", "zero_", "masked_fill_", "ones", "new_ones", "narrow",
    "index_select", "gather", "embedding", "constant_pad_nd", "flip", "roll", "triu", "tril",
}  # fmt: skip


class Unfit(ValueError):
    """A model whose cache can't be judged, and why: its uncached pass is no measure."""


@dataclass(frozen=True)
class Measured:
    """What was found. `tolerance` is for the logits in `dtype`, None if 1e-9 will do.

    `lost` is how far the model's float32 logits are from those in float64, `rounded` what it
    computes in less than float64 by itself, `spread` how much its logits differ from each other.
    """

    dtype: str
    tolerance: float | None
    lost: float
    rounded: tuple[str, ...]
    spread: float
    pads: bool

    def __str__(self) -> str:
        if self.tolerance is None:
            return f"float64, to {EXACT:.0e}"
        allowed = f"{self.dtype}, to {self.tolerance:.2g} (logits spread by {self.spread:.2g})"
        cost = f"{MARGIN} times what its float32 loses is allowed"
        if self.dtype == "float32":
            return f"{allowed}: in float64 it, or its padding, fails without a cache, and {cost}"
        if not self.rounded:
            return f"{allowed}: it has tables in float32, and {cost}"
        parts = ", ".join(self.rounded[:6]) + (", ..." if len(self.rounded) > 6 else "")
        return f"{allowed}: the model computes {parts} in float32 by itself, and {cost}"


def measure(model: Adapted) -> Measured:
    """Measure a model in float64; in float32, if it runs or knows padding only there.

    Apple's GPU (MPS) has no float64. Raises Unfit for a model whose uncached logits are not those
    of a causal model.
    """
    if next(model.parameters()).device.type == "mps":
        return measured_in_float32(model)
    model.exact = True
    try:
        found = measured(model)
    except Unfit:
        raise
    except Exception:
        return measured_in_float32(model)
    if not found.pads and "attention_mask" in model.takes:
        with contextlib.suppress(Unfit):
            rougher = measured_in_float32(model)
            if rougher.pads:
                return rougher
        model.exact = True
    return found


def measured_in_float32(model: Adapted) -> Measured:
    """Raises Unfit, too, if the model cannot be run without a cache, but for a lack of memory."""
    model.exact = False
    try:
        return measured(model)
    except FloatingPointError as error:
        raise Unfit(str(error)) from None
    except (Unfit, MemoryError):
        raise
    except Exception as error:
        if "tried to allocate" in str(error).lower():
            raise
        said = f"{type(error).__name__}: {error}"
        raise Unfit(f"without a cache, a call with words alone fails: {said}") from error


@torch.no_grad()
def measured(model: Adapted) -> Measured:
    """What is found in the one dtype that the model is set to.

    Raises FloatingPointError for logits that are NaN or infinite.
    """
    exact, _ = precise_copy(model)
    ids = on_device(texts(len(model.words), model.room)[:, 0], exact)
    with Rounding() as seen:
        logits = uncached(exact, ids)
        with contextlib.suppress(Exception):
            exact(ids[:2, :2], use_cache=True)
        padding_error(exact, ids)
    if logits.shape[:-1] != ids.shape:
        rows = f"{ids.size(1)} tokens have logits in {logits.size(-2)} rows"
        raise Unfit(f"without a cache, {rows}; expected a row for each token")
    if not torch.isfinite(logits).all():
        raise FloatingPointError("without a cache its logits are NaN or infinite")
    lost, spread = what_rounding_costs(model, ids, seen.eps), logits.cpu().double().std().item()
    allowed = max(MARGIN * lost, EXACT)
    if lost > spread:
        moved = f"float32 moves its logits by {lost:.2g}, and they spread by {spread:.2g} only"
        raise Unfit(f"without a cache, {moved}")
    own = fit(exact, ids, logits, allowed)
    padding = padding_error(exact, ids)
    if padding <= allowed:
        own = max(own, padding)
    tolerance = allowed if seen.names or MARGIN * own > EXACT else None
    if model.use.cache in QUANTISED:
        tolerance = max(allowed, MARGIN * quantising(exact, ids, logits))
    names = tuple(sorted(seen.names))
    dtype = "float64" if model.exact else "float32"
    return Measured(dtype, tolerance, lost, names, spread, padding <= allowed)


def what_rounding_costs(model: Adapted, ids: Tensor, eps: float) -> float:
    """How far the model's float32 logits are from those in float64.

    For a model that does not run in float64, or computes a part in less than float32: how far
    logits move when all weights are nudged by roundings of that size.
    """
    rounded = copied(model).eval().float()
    if eps <= FLOAT32:
        with contextlib.suppress(Exception):
            double = copied(model).eval()
            double.exact = True
            return rounding(double.double(), rounded)
    generator, plain = torch.Generator().manual_seed(0), uncached(rounded, ids)
    others = [uncached(nudged(rounded, generator, max(eps, FLOAT32)), ids) for _ in range(NUDGES)]
    return max((other - plain).abs().max().item() for other in others)


def fit(exact: Adapted, ids: Tensor, logits: Tensor, tolerance: float) -> float:
    """How far uncached logits differ when they are computed in another way.

    Raises Unfit if they depend on anything but a token and those before it.
    """
    largest = 0.0

    def differ(other: Tensor, what: str) -> None:
        nonlocal largest
        found = (other - logits[: len(other), : other.size(1)]).abs().amax((0, 2))
        largest = max(largest, found.max().item())
        if (found > tolerance).any() and not jumps(exact, ids, found.max().item()):
            position = (found > tolerance).nonzero()[0].item()
            raise Unfit(f"without a cache, {what} (position {position}, by {found.max():.2g})")

    differ(uncached(exact, ids), "the same call gives other logits when it is repeated")
    for length in (n for n in LENGTHS if n < ids.size(1)):
        differ(
            uncached(exact, ids[:, :length]),
            "a token's logits depend on those that come after it, or on how many do",
        )
    alone = torch.cat([uncached(exact, row[None]) for row in ids])
    differ(alone, "a row's logits depend on the other rows")
    return largest


def jumps(exact: Adapted, ids: Tensor, error: float) -> bool:
    """Does a nudge of the weights by float32 roundings move the logits as far?"""
    generator, plain = torch.Generator().manual_seed(0), uncached(exact, ids)
    others = (uncached(nudged(exact, generator, FLOAT32), ids) for _ in range(NUDGES))
    return any(error <= MARGIN * (other - plain).abs().max().item() for other in others)


class Rounding(TorchDispatchMode):
    """Notes the operations that compute a result in less than float64, in `names`.

    `eps` is the rounding of the coarsest dtype among them.
    """

    def __init__(self):
        super().__init__()
        self.names: set[str] = set()
        self.eps = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        results = found if isinstance(found, tuple | list) else (found,)
        for result in results if name not in MOVED else ():
            if is_rough(result):
                self.names.add(name.strip("_"))
                self.eps = max(self.eps, torch.finfo(result.dtype).eps)
        return found


def is_rough(result: object) -> bool:
    return (
        isinstance(result, Tensor)
        and result.is_floating_point()
        and result.dtype != torch.float64
        and result.numel() > 1
    )


def padding_error(exact: Adapted, ids: Tensor) -> float:
    """How far rows with padding on their left are from those without, if there is no cache.

    Infinite for a model that is not told of padding, or fails with it.
    """
    if "attention_mask" not in exact.takes:
        return math.inf
    length, padding = min(12, exact.room), (0, 3)
    rows, columns = ids[:2, :length], torch.arange(length)
    mask = (columns >= torch.tensor(padding)[:, None]).long().to(ids.device)
    error = 0.0
    try:
        out = exact.called(rows, use_cache=False, **told(exact.takes, mask, length))
        found = exact.logits(out)
        for row, skipped in enumerate(padding):
            alone = uncached(exact, rows[row : row + 1, skipped:])
            here = (found[row : row + 1, skipped:] - alone).abs().nan_to_num(math.inf).max()
            error = max(error, here.item())
    except Exception:
        return math.inf
    return error


def quantising(exact: nn.Module, ids: Tensor, logits: Tensor) -> float:
    """How far logits move if keys and values are quantised, and nothing is kept."""
    past = new_past(exact.use.cache, exact.model.config, exact.room)
    for layer in past.layers:
        layer.update = _rounding(layer)
    out = exact.called(ids[:, : exact.room], use_cache=True, **{exact.kept_as: past})
    return (exact.logits(out) - logits).abs().max().item()


def _rounding(layer: Any) -> Callable[..., tuple[Tensor, ...]]:
    """An `update` that returns keys and values as they are after quantising."""

    def update(keys: Tensor, values: Tensor, *rest: object) -> tuple[Tensor, ...]:
        layer.lazy_initialization(keys, values)
        axes = [{"axis": layer.axis_key}, {"axis": layer.axis_value}] if grouped else [{}, {}]
        return tuple(
            layer._dequantize(layer._quantize(some.contiguous(), **axis))
            for some, axis in zip((keys, values), axes, strict=True)
        )

    grouped = hasattr(layer, "axis_key")
    return update
