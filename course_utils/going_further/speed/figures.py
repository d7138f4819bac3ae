"""The figures of how fast it can go: bytes, products, steps, engines (chapter 07)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plots.look import (
    AT_X,
    BLACK,
    BLUE,
    BUILT,
    COSTLY,
    GOLD,
    GREEN,
    OFFSET,
    ORANGE,
    PALE,
    PLACE,
    PURPLE,
    SKY,
    TALL,
    THEORY,
    band,
    curve,
    log_axes,
    log_ticks,
    name_lines,
    panels,
    quartiles,
    spread,
)

PEERS = {
    "transformers": curve(GOLD),
    "course, plain": curve(GREEN),
    "course, plain by columns": curve(GREEN, ":", "x"),
    "CTranslate2": curve(PURPLE),
    "ONNX Runtime": curve(PURPLE, "--", "P"),
    "course, fast": curve(SKY, "--", "s"),
    "course, compiled": curve(SKY),
}
DECODERS = {"plain": PALE[GREEN], "fast": PALE[SKY], "compiled": PALE[SKY], "floor": "white"}


def peers(table: pd.DataFrame) -> Figure:
    """Time per decoded token against the tokens before it, one panel per shape.

    `table` is what `benchmarks/peers.py` writes. Bars are quartiles; of the runs of a shape, that
    with most threads is drawn.
    """
    shapes = table["shape"].unique()
    figure, axes = panels(len(shapes), height=TALL)
    for ax, shape in zip(axes, shapes, strict=True):
        part = table[table["shape"] == shape]
        part = part[part["threads"] == part["threads"].max()]
        for name, look in PEERS.items():
            one = part[part["contender"] == name].sort_values("tokens")
            if len(one):
                ax.plot(one["tokens"], one["decode_ms"], label=name.replace(" by", "\nby"), **look)
                spread(ax, one["tokens"], one["decode_q25"], one["decode_q75"], look["color"])
        limit = part.groupby("tokens")["limit_ms"].first()
        ax.plot(limit.index, limit, label="reading the bytes", **THEORY)
        log_axes(ax, tuple(int(n) for n in limit.index))
        ax.tick_params(axis="x", rotation=90)
        ax.set(xlabel="tokens before", title=f"Shape {shape}")
    axes[0].set_ylabel("time for one more token (ms)")
    name_lines(axes[-1])
    return figure


def bandwidth(read: pd.DataFrame, marks: dict[str, int]) -> Figure:
    """Bytes read per second against how many there are, a line per column of `read`.

    The index is in bytes, the values in bytes per second; `marks` names some sizes.
    """
    figure, (ax,) = panels()
    for name, look in zip(read, (curve(BLUE, "--"), curve(GREEN)), strict=False):
        ax.plot(read.index / 1e6, read[name] / 1e9, label=name, **look)
    for name, size in marks.items():
        ax.axvline(size / 1e6, **PLACE)
        ax.annotate(name, (size / 1e6, 0.02), (3, 0), **AT_X)
    ax.set(xscale="log", ylim=(0, None), xlabel="bytes read again and again (MB)")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(ylabel="bytes per second (GB/s)", title="How fast this machine reads")
    name_lines(ax)
    return figure


def products(
    rates: pd.DataFrame, low: pd.DataFrame | None = None, high: pd.DataFrame | None = None
) -> Figure:
    """Bars of bytes per second (a row each), grouped by where the weights are (a column each).

    `low` and `high`, tables of the same shape, are drawn as thin bars.
    """
    figure, (ax,) = panels()
    for i, (place, look) in enumerate(zip(rates, (BUILT, COSTLY), strict=True)):
        at = [row + 0.38 * (i - 0.5) for row in range(len(rates))]
        ax.bar(at, rates[place] / 1e9, 0.36, label=place, **look)
        tops = rates[place] if high is None else high[place]
        if high is not None:
            spread(ax, at, low[place] / 1e9, high[place] / 1e9, BLACK)
        for x, rate, top in zip(at, rates[place] / 1e9, tops / 1e9, strict=True):
            ax.annotate(f"{rate:.0f}", (x, top), (0, 2), ha="center", **OFFSET)
    ax.set_xticks(range(len(rates)), [name.replace(", ", ",\n") for name in rates.index])
    most = rates.max(axis=None) if high is None else high.max(axis=None)
    ax.set(ylabel="weights read (GB/s)", title="One row times a matrix")
    ax.set_ylim(0, 1.25 * most / 1e9)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left", ncols=2)
    return figure


def steps(
    milliseconds: dict[str, dict[str, float]],
    spreads: dict[str, dict[str, tuple[float, float]]] | None = None,
) -> Figure:
    """Time per token of each decoder, a panel per model; the last bar is the floor.

    `spreads` has quartiles (ms), for the decoders that have some: thin bars.
    """
    figure, axes = panels(len(milliseconds))
    for ax, (model, times) in zip(axes, milliseconds.items(), strict=True):
        colors = [DECODERS[name] for name in times]
        ax.barh(list(times), list(times.values()), color=colors, edgecolor="black")
        ends = dict(times)
        for name, (low, high) in (spreads or {}).get(model, {}).items():
            spread(ax, list(times).index(name), low, high, BLACK, across=True)
            ends[name] = max(high, times[name])
        for row, (name, ms) in enumerate(times.items()):
            ax.annotate(f"{ms:.3g}", (ends[name], row), (4, 0), va="center", **OFFSET)
        ax.set(xlabel="time for one token (ms)", title=model, xlim=(0, 1.25 * max(ends.values())))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return figure


def precision(
    recall: pd.Series, milliseconds: pd.Series | pd.DataFrame, megabytes: dict[str, float]
) -> Figure:
    """What smaller numbers cost and bring: answers right (left), time to read them (right).

    `milliseconds`: medians, or a row per round, whose quartiles are drawn as thin lines.
    """
    figure, (left, right) = panels(2)
    low, ms, high = quartiles(milliseconds)
    bars = left.barh(list(recall.index), recall, color=GREEN)
    left.bar_label(bars, [f"{value:.3f}" for value in recall], padding=4)
    left.set(xlim=(0, 1.3), xlabel="share of questions answered right", title="Recall")
    left.set_xticks((0, 0.5, 1))
    _product_times(right, low, ms, high, megabytes)
    for ax in (left, right):
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return figure


def _product_times(
    ax: Axes, low: pd.Series, ms: pd.Series, high: pd.Series, megabytes: dict[str, float]
) -> None:
    """A point per way, and beside it, where there is more room, its time and its bytes."""
    ax.plot(ms, range(len(ms)), "o", color=SKY)
    spread(ax, range(len(ms)), low, high, SKY, across=True)
    for row, (name, value) in enumerate(ms.items()):
        said = f"{value:.2g} ms for {megabytes[name]:.0f} MB"
        if value**2 < low.min() * high.max():
            ax.annotate(said, (high[name], row), (7, 0), va="center", **OFFSET)
        else:
            ax.annotate(said, (low[name], row), (-7, 0), va="center", ha="right", **OFFSET)
    ax.set(xscale="log", xlim=(0.7 * low.min(), 1.4 * high.max()), ylim=(-0.6, len(ms) - 0.4))
    ax.set_yticks(range(len(ms)), ms.index)
    log_ticks(ax.xaxis)
    ax.set(xlabel="time of one product (ms)", title="The wide model's last matrix")


def growth(
    totals: pd.Series,
    exponent: float,
    steps: pd.DataFrame,
    lines: dict,
    low: pd.DataFrame | None = None,
    high: pd.DataFrame | None = None,
) -> Figure:
    """Uncached: total seconds against tokens, with the fitted power (left). Cached: a step (right).

    `steps` has a column of seconds per decoder, by position; `lines` the fitted slope and start;
    `low` and `high`, tables like `steps`, are drawn as bands.
    """
    figure, (left, right) = panels(2)
    tokens = totals.index.to_numpy(dtype=float)
    left.plot(tokens, totals, label="measured", **curve(ORANGE, ""))
    middle = np.exp(np.log(totals).mean() - exponent * np.log(tokens).mean())
    left.plot(tokens, middle * tokens**exponent, label=f"exponent {exponent:.2f}", **THEORY)
    log_axes(left, tuple(int(n) for n in tokens[::2]))
    left.set(xlabel="tokens generated", ylabel="total time (s)", title="Without a cache")
    for name in steps:
        look = PEERS[name] | {"marker": ""}
        right.plot(steps.index, 1e3 * steps[name], label=name.removeprefix("course, "), **look)
        if low is not None:
            band(right, steps.index, 1e3 * low[name], 1e3 * high[name], look["color"])
        slope, start = lines[name]
        right.plot(steps.index, 1e3 * (start + slope * steps.index), **THEORY)
    right.set(xlabel="position of the token", ylabel="time for one token (ms)", ylim=(0, None))
    right.set_title("With one")
    left.legend(loc="upper left")
    name_lines(right)
    return figure
