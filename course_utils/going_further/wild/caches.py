"""The caches of `transformers` with the course's two methods: `truncate` and `reorder`.

What a cache of the library does not offer raises NotImplementedError, with the reason; nothing is
asked of it that it refuses in words of its own.

Shapes: B rows, T columns so far, N new rows.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .installed import module

KINDS = {
    "own": "what the model makes if it is given none",
    "dynamic": "DynamicCache(config=...)",
    "growing": "DynamicCache(), which is told nothing of the model and keeps everything",
    "recording": "DynamicCache(config=...), told to keep what a rollback needs",
    "static": "StaticCache",
    "offloaded": "DynamicCache(offloading=True); needs CUDA",
    "fp8": "QuantizedCache, 8-bit floats",
    "quanto": "QuantizedCache by optimum-quanto",
    "hqq": "QuantizedCache by hqq",
}
QUANTISED = ("fp8", "quanto", "hqq")


def new_past(kind: str, config: Any, room: int) -> Any:
    """An empty cache of the library, for `room` positions; None for the model's own.

    Raises ValueError for a kind that does not exist here, and what the library raises for one that
    the model cannot have.
    """
    if kind not in KINDS:
        raise ValueError(f"--cache {kind}: expected one of {', '.join(KINDS)}.")
    if kind == "own":
        return None
    found = module("cache_utils")
    if kind in QUANTISED:
        return quantised(kind, config)
    if kind == "static":
        return found.StaticCache(config=config, max_cache_len=room)
    if kind == "growing":
        return found.DynamicCache()
    if kind == "offloaded":
        if not torch.cuda.is_available():
            raise ValueError("--cache offloaded: the library offloads from a CUDA device only.")
        return found.DynamicCache(config=config, offloading=True)
    past = found.DynamicCache(config=config)
    if kind == "recording":
        past.activate_past_recording()
    return past


def quantised(kind: str, config: Any) -> Any:
    try:
        return module("cache_utils").QuantizedCache(backend=kind, config=config)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"--cache {kind}: this model can't have it here ({error}). Expected another --cache, "
            "such as static, or what this one needs."
        ) from None


class Kept:
    """What the library keeps of some rows, and what the adapter must know beside it.

    `length` columns were fed to `rows` rows; `seen` (B, T) is 0 where a column means nothing, or
    None. Nothing before column `floor` can be taken back any more.
    """

    def __init__(self, model: nn.Module, past: Any, seen: Tensor | None = None):
        self.model, self.past, self.seen = model, past, seen
        self.length = self.floor = 0
        self.rows: int | None = None

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on, by the library's `crop`."""
        why = why_not_cropped(self.past)
        if length < self.floor:
            why = "a layer that records its past keeps no more than it needs after it is cropped"
        if why:
            raise NotImplementedError(why)
        if length < self.length:
            self.floor = length if any(map(forgets_when_cropped, layers_of(self.past))) else 0
            self.crop(self.length - length)
        self.length = length
        if self.seen is not None:
            self.seen = self.seen[:, :length]

    def crop(self, tokens: int) -> None:
        """Take back the last `tokens`."""
        try:
            self.past.crop(-tokens)
        except RuntimeError as error:
            if "not support" in str(error):
                raise NotImplementedError(str(error)) from None
            raise

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row rows[i] was; `rows` (N,).

        As many rows as before are moved by `reorder_cache`, as a beam search does it; more or
        fewer by `batch_select_indices`.
        """
        same_number = self.rows is None or len(rows) == self.rows
        method = "reorder_cache" if same_number else "batch_select_indices"
        parts = layers_of(self.past)
        if not hasattr(self.past, method) or not all(hasattr(part, method) for part in parts):
            self.by_the_model(rows, method, same_number)
        else:
            getattr(self.past, method)(rows)
        self.rows = len(rows)
        if self.seen is not None:
            self.seen = self.seen[rows]

    def by_the_model(self, rows: Tensor, method: str, same_number: bool) -> None:
        own = getattr(self.model, "_reorder_cache", None)
        if own is None or not same_number:
            raise NotImplementedError(f"{name_of(self.past)} has no {method}")
        self.past = own(self.past, rows)


def layers_of(past: Any) -> list[Any]:
    """The parts of a cache, one for each layer; none for what is no Cache of the library."""
    past = getattr(past, "self_attention_cache", past)
    return list(getattr(past, "layers", ()))


def why_not_cropped(past: Any) -> str:
    """Why a cache can't be rolled back, as its class says; "" if it can."""
    if not hasattr(past, "crop"):
        return f"{name_of(past)} has no crop"
    for layer in layers_of(past):
        name = type(layer).__name__
        if not hasattr(layer, "crop"):
            return f"{name} has no crop"
        if not getattr(layer, "is_croppable", True):
            return f"{name} says that it can't be cropped"
        recording = getattr(layer, "record_past", True)
        window = getattr(layer, "sliding_window", None)
        if not recording and (window is None or layer.get_seq_length() >= window):
            return f"{name} is cropped only where it was told to keep the past"
    return ""


def forgets_when_cropped(layer: Any) -> bool:
    """Does it record its past, and has more of it than its next call needs?"""
    if not getattr(layer, "record_past", False):
        return False
    window = getattr(layer, "sliding_window", None)
    return window is None or layer.get_seq_length() >= window


def name_of(past: Any) -> str:
    """The class of a cache and those of its layers: "DynamicCache of DynamicLayer"."""
    if past is None:
        return "None"
    kinds = list(dict.fromkeys(type(layer).__name__ for layer in layers_of(past)))
    return type(past).__name__ + (f" of {', '.join(kinds)}" if kinds else "")
