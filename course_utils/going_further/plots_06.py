"""The figures of chapter 06: the look is that of `course_utils.plots`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..plots import _OFFSET, THEORY, _figure, _log_axes

PEERS = {
    "transformers": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "course, plain": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    "course, plain by columns": {"color": "#0072B2", "linestyle": ":", "marker": "x"},
    "CTranslate2": {"color": "#CC79A7", "linestyle": "-", "marker": "D"},
    "course, fast": {"color": "#009E73", "linestyle": "--", "marker": "^"},
    "course, compiled": {"color": "#009E73", "linestyle": "-", "marker": "v"},
}


def peers(table: pd.DataFrame) -> Figure:
    """Time per decoded token against the tokens before it, one panel per shape.

    `table` is what `benchmarks/peers.py` writes. Bars are quartiles; of the runs of a shape, that
    with most threads is drawn.
    """
    shapes = table["shape"].unique()
    figure, axes = _figure(len(shapes))
    for ax, shape in zip(axes, shapes, strict=True):
        part = table[table["shape"] == shape]
        part = part[part["threads"] == part["threads"].max()]
        for name, look in PEERS.items():
            one = part[part["contender"] == name].sort_values("tokens")
            spread = [one["decode_ms"] - one["decode_q25"], one["decode_q75"] - one["decode_ms"]]
            ax.errorbar(one["tokens"], one["decode_ms"], spread, markersize=5, **look)
        limit = part.groupby("tokens")["limit_ms"].first()
        ax.plot(limit.index, limit, **THEORY)
        _log_axes(ax, tuple(int(n) for n in limit.index))
        ax.set(xlabel="tokens before", title=f"Shape {shape}")
    axes[0].set_ylabel("time for one more token (ms)")
    handles = [plt.Line2D([], [], label=name, **look) for name, look in PEERS.items()]
    handles.append(plt.Line2D([], [], label="reading the bytes", **THEORY))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def bandwidth(read: pd.DataFrame, marks: dict[str, int]) -> Figure:
    """Bytes read per second against how many there are, a line per column of `read`.

    The index is in bytes, the values in bytes per second; `marks` names some sizes.
    """
    figure, (ax,) = _figure()
    looks = (PEERS["course, plain"], PEERS["transformers"])
    for name, look in zip(read, looks, strict=False):
        ax.plot(read.index / 1e6, read[name] / 1e9, label=name, **look)
    for name, size in marks.items():
        ax.axvline(size / 1e6, color="0.4", linewidth=0.8)
        ax.annotate(name, (size / 1e6, 0.02), (3, 0), xycoords=("data", "axes fraction"), **_OFFSET)
    ax.set(xscale="log", ylim=(0, None), xlabel="bytes read again and again (MB)")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set(ylabel="bytes per second (GB/s)", title="The fewer bytes, the nearer they are kept")
    ax.legend(frameon=False)
    return figure


def products(rates: pd.DataFrame) -> Figure:
    """Bars of bytes per second (a row each), grouped by where the weights are (a column each)."""
    figure, (ax,) = _figure()
    shades = (("#0072B2", ""), ("#E69F00", "//"))
    for i, (place, (color, hatch)) in enumerate(zip(rates, shades, strict=True)):
        at = [row + 0.38 * (i - 0.5) for row in range(len(rates))]
        bars = ax.bar(at, rates[place] / 1e9, 0.36, label=place, color=color, hatch=hatch)
        ax.bar_label(bars, [f"{rate / 1e9:.0f}" for rate in rates[place]], padding=2)
    ax.set_xticks(range(len(rates)), rates.index)
    ax.set(ylabel="weights read (GB/s)", title="One row times a matrix, three ways")
    ax.legend(frameon=False)
    return figure


def steps(milliseconds: dict[str, dict[str, float]]) -> Figure:
    """Time per token of each decoder, a panel per model; the last bar is the floor."""
    figure, axes = _figure(len(milliseconds))
    for ax, (model, times) in zip(axes, milliseconds.items(), strict=True):
        colors = ["#0072B2"] * (len(times) - 1) + ["white"]
        bars = ax.barh(list(times), list(times.values()), color=colors, edgecolor="black")
        ax.bar_label(bars, [f"{ms:.3g}" for ms in times.values()], padding=4)
        ax.set(xlabel="time for one token (ms)", title=model, xlim=(0, 1.2 * max(times.values())))
        ax.invert_yaxis()
    return figure


def precision(recall: pd.Series, milliseconds: pd.Series, megabytes: dict[str, float]) -> Figure:
    """What smaller numbers cost and bring: answers right (left), time to read them (right)."""
    figure, (left, right) = _figure(2)
    bars = left.barh(list(recall.index), recall, color="#009E73", edgecolor="black")
    left.bar_label(bars, [f"{value:.3f}" for value in recall], padding=4)
    left.set(xlim=(0, 1.2), xlabel="share of questions answered right", title="Recall")
    bars = right.barh(list(milliseconds.index), milliseconds, color="#0072B2", edgecolor="black")
    notes = [f"{ms:.2g} ms for {megabytes[name]:.0f} MB" for name, ms in milliseconds.items()]
    right.bar_label(bars, notes, padding=4)
    right.set(xlim=(0, 1.7 * milliseconds.max()), xlabel="time of one product (ms)")
    right.set_title("The wide model's last matrix")
    for ax in (left, right):
        ax.invert_yaxis()
    return figure


def growth(totals: pd.Series, exponent: float, steps: pd.DataFrame, lines: dict) -> Figure:
    """Uncached: total seconds against tokens, with the fitted power (left). Cached: a step (right).

    `steps` has a column of seconds per decoder, by position; `lines` the fitted slope and start.
    """
    figure, (left, right) = _figure(2)
    tokens = totals.index.to_numpy(dtype=float)
    left.plot(tokens, totals, label="measured", **(PEERS["transformers"] | {"linestyle": ""}))
    middle = np.exp(np.log(totals).mean() - exponent * np.log(tokens).mean())
    left.plot(tokens, middle * tokens**exponent, label=f"exponent {exponent:.2f}", **THEORY)
    _log_axes(left, tuple(int(n) for n in tokens[::2]))
    left.set(xlabel="tokens generated", ylabel="total time (s)", title="Without a cache")
    for name in steps:
        look = PEERS[name] | {"marker": "", "linewidth": 1}
        right.plot(steps.index, 1e3 * steps[name], label=name.removeprefix("course, "), **look)
        slope, start = lines[name]
        right.plot(steps.index, 1e3 * (start + slope * steps.index), **THEORY)
    right.set(xlabel="position of the token", ylabel="time for one token (ms)", ylim=(0, None))
    right.set_title("With one")
    for ax in (left, right):
        ax.legend(frameon=False)
    return figure
