"""What the check cell of the ring of slots calls (chapter 09)."""

import math
from dataclasses import dataclass, replace
from functools import cache

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ....checks.common import is_stub, raised, verdict
from ....checks.elsewhere import follows_its_device
from ....checks.inputs import random
from ....checks.judged import judge
from ....transformer import DecoderOnlyTransformer
from .slots import appended, counted


@verdict
def check_window_cache(window_cache: type) -> str:
    """Chapter 09, exercise 3. Returns a verdict; raises AssertionError on a wrong cache."""
    judge(
        lambda text: _fed(window_cache, text),
        lambda text: None,
        _texts(),
        first=[_Text(3, 0, 8), _Text(3, 2, 9), _Text(20, 4, 3, batch=2, heads=2), _Text(7, 3, 150)],
        number=100,
    )
    _one_at_a_time(window_cache)
    model = _model(2, 2, 4, torch.float32)

    def use(module: nn.Module, device: torch.device) -> tuple[Tensor, ...]:
        own, found = window_cache(module, 1, 2, 1), ()
        for _ in range(5):
            k, v = torch.empty(2, 1, 2, 1, 4, device=device)
            found += own.append(0, k, v)
        return found

    follows_its_device(use, "WindowCache", model)
    return (
        "WindowCache is right: any window and sinks, layers with windows of their own, several "
        "rows, two caches in turn."
    )


def _one_at_a_time(window_cache: type) -> None:
    """Raise AssertionError if two positions at once are not refused."""
    own = window_cache(_model(1, 1, 2, torch.float64), 1, 3)
    try:
        own.append(0, *random(0, 2, 1, 1, 2, 2))
    except ValueError:
        return
    except Exception as error:
        raise AssertionError(f"Two positions at once: append {raised(error)}.") from error
    raise AssertionError(
        "append takes two positions at once, and cannot say what each of them sees. Leave the call "
        "of one_position(k) where it was: it raises ValueError."
    )


@cache
def _model(layers: int, heads: int, d_head: int, dtype: torch.dtype) -> DecoderOnlyTransformer:
    shape = (5, heads * d_head, 4, layers, 32)
    return DecoderOnlyTransformer(*shape, num_heads=heads, dropout=0.0).to(dtype)


@dataclass(frozen=True)
class _Text:
    """A cache, and how many positions go into it, one after the other.

    `windows` is one number, or one for each layer. After `reorder[0]` positions the rows are
    reordered to `reorder[1]`. A `second` cache is fed in turn with the first.
    """

    windows: int | tuple[int, ...]
    sinks: int
    positions: int
    layers: int = 1
    batch: int = 1
    heads: int = 1
    d_head: int = 2
    dtype: torch.dtype = torch.float64
    reorder: tuple[int, tuple[int, ...]] | None = None
    second: bool = False

    def __str__(self) -> str:
        windows = self.windows if isinstance(self.windows, int) else list(self.windows)
        parts = [f"With window={windows}, sinks={self.sinks}"]
        parts += [f"{self.batch} rows"] * (self.batch > 1)
        parts += [f"{self.heads} heads"] * (self.heads > 1)
        parts += [str(self.dtype)] * (self.dtype != torch.float64)
        if self.second:
            parts.append("a second cache fed in turn with the first")
        if self.reorder:
            at, rows = self.reorder
            parts.append(f"rows reordered to {list(rows)} after {at} positions")
        return ", ".join(parts) + ":"

    def window(self, layer: int) -> int:
        return self.windows if isinstance(self.windows, int) else self.windows[layer]

    def kept(self, layer: int, last: int) -> list[int]:
        """The positions that `last` looks at."""
        window = self.window(layer)
        return [p for p in range(last + 1) if p > last - window or p < self.sinks]

    def numbers(self, seed: int) -> Tensor:
        """The keys and values (positions, layers, 2, B, H, 1, d) that go in."""
        shape = (self.positions, self.layers, 2, self.batch, self.heads, 1, self.d_head)
        return random(seed, *shape, dtype=self.dtype)


@st.composite
def _texts(draw: st.DrawFn) -> _Text:
    layers, batch, heads, d_head = (draw(st.integers(1, most)) for most in (5, 5, 2, 3))
    window, sinks = st.integers(1, 4), draw(st.integers(0, 3))
    windows = draw(window)
    if draw(st.booleans()):
        windows = tuple(draw(window) for _ in range(layers))
    positions = draw(st.integers(1, 14))
    reorder = None
    if draw(st.integers(0, 3)) == 3:
        rows = st.lists(st.integers(0, batch - 1), min_size=batch, max_size=batch)
        reorder = draw(st.integers(1, positions)), tuple(draw(rows))
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    second = draw(st.integers(0, 3)) == 3
    return _Text(windows, sinks, positions, layers, batch, heads, d_head, dtype, reorder, second)


def _fed(window_cache: type, text: _Text) -> None:
    """Raise AssertionError with what is wrong, where, and which simpler text goes well."""
    wrong = _wrong(window_cache, text)
    if not wrong:
        return
    fewer = text.windows if isinstance(text.windows, int) else text.windows[:1]
    for simpler, advice in (
        (replace(text, second=False), "Alone it is right: each cache needs tensors of its own"),
        (
            replace(text, reorder=None),
            "Not reordered it is right: `reorder` turns the rows of self.keys and self.values, so "
            "all that is kept has to be there",
        ),
        (
            replace(text, layers=1, windows=fewer),
            "With one layer it is right: does each use its own self.lengths[layer] and "
            "self.windows[layer]",
        ),
    ):
        if simpler != text and not _wrong(window_cache, simpler):
            raise AssertionError(f"{wrong}. {advice}")
    raise AssertionError(wrong)


def _wrong(window_cache: type, text: _Text) -> str:
    try:
        _play(window_cache, text)
    except AssertionError as error:
        return str(error)
    except Exception as error:
        if is_stub(error):
            raise
        return raised(error)
    return ""


def _play(window_cache: type, text: _Text) -> None:
    """Feed it, and a second one if there is to be one. Raise AssertionError where it is wrong."""
    given = [text.numbers(seed) for seed in range(1 + text.second)]
    caches = [_made(window_cache, text) for _ in given]
    for t in range(text.positions):
        for number, (own, numbers) in enumerate(zip(caches, given, strict=True)):
            which = " of the second cache" * number
            for layer in range(text.layers):
                where = f"after position {t}, in layer {layer}{which},"
                appended(own, numbers[: t + 1, layer], text.kept(layer, t), layer, where)
                counted(own, t, layer, where)
            if text.reorder and text.reorder[0] == t + 1:
                rows = torch.tensor(text.reorder[1])
                own.reorder(rows)
                numbers[: t + 1] = numbers[: t + 1, :, :, rows]
    for own in caches:
        _small(own, text)


def _made(window_cache: type, text: _Text) -> object:
    model = _model(text.layers, text.heads, text.d_head, text.dtype)
    windows = text.windows if isinstance(text.windows, int) else list(text.windows)
    sinks = {"sinks": text.sinks} if text.sinks else {}
    own = window_cache(model, text.batch, windows, **sinks)
    if own.batch_size != text.batch:
        raise AssertionError(f"batch_size is {own.batch_size}, expected {text.batch}")
    for tensor in (*own.keys, *own.values):
        tensor.fill_(math.nan)  # what is in an empty slot is not the same twice
    if isinstance(windows, list):
        windows.clear()
    return own


def _small(own: object, text: _Text) -> None:
    """Raise AssertionError if the cache takes more bytes than its slots."""
    slots = [text.sinks + text.window(layer) for layer in range(text.layers)]
    size = 2 * text.batch * text.heads * text.d_head * own.keys[0].element_size()
    if own.nbytes > size * sum(slots):
        raise AssertionError(
            f"after {text.positions} positions it takes {own.nbytes} bytes, expected "
            f"{size * sum(slots)}: S + W slots in each layer, however long the text is"
        )
