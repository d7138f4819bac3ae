"""The figures of the latency sweep: fooled clocks, gains, fits, the whole of it (notebook 06)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from ..benchmark import GROWING, LENGTHS, NO_CACHE, PREALLOCATED, operations, totals
from .look import (
    AT_X,
    BLACK,
    CONTENDERS,
    COSTLY,
    GREEN,
    GREY,
    OFFSET,
    ORANGE,
    SMALL,
    TALL,
    THEORY,
    band,
    log_axes,
    log_ticks,
    name_lines,
    panels,
    spread,
)


def fooled_clocks(calls: list[float], blocks: tuple, turns: tuple, ratios: list[float]) -> Figure:
    """What goes wrong without warm-up, without taking turns, and without repetition.

    `calls`: seconds of the first calls in a fresh process. `blocks`, `turns`: two lists of seconds
    of the same contender, run one after the other or in turn; bars are quartiles. `ratios`: single
    measurements.
    """
    figure, (left, middle, right) = panels(3)
    left.bar(range(1, len(calls) + 1), 1e3 * np.array(calls), color=GREY)
    left.patches[0].set(**COSTLY)
    left.set(xlabel="call in a fresh process", ylabel="time (ms)", title="No warm-up")
    _against_itself(middle, {"in blocks": blocks, "in turns": turns})
    right.hist(ratios, bins=12, color=GREY, edgecolor="white")
    right.axvline(np.median(ratios), **THEORY)
    right.set(xlabel="no cache / cache, 10 tokens", ylabel="measurements", title="One by one")
    for ax in (left, middle, right):
        ax.grid(axis="x", visible=False)
    return figure


def _against_itself(ax: Axes, pairs: dict[str, tuple]) -> None:
    """Quartiles of the second time over the first, which should be 1."""
    found = [np.array(second) / np.array(first) for first, second in pairs.values()]
    quartiles = np.array([np.quantile(each, (0.25, 0.5, 0.75)) for each in found])
    for at, (color, (low, value, high)) in enumerate(zip((ORANGE, GREEN), quartiles, strict=True)):
        ax.plot(at, value, "o", color=color)
        spread(ax, at, low, high, color)
        ax.annotate(f"{value:.2f}", (at, high), (0, 4), ha="center", **OFFSET)
    ax.axhline(1, **THEORY)
    ax.set(ylabel="time of A again / time of A", yscale="log", xlim=(-0.6, 1.6))
    ax.set_xticks(range(2), list(pairs))
    log_ticks(ax.yaxis, subs=(1, 1.2, 1.5, 2, 3, 5, 7))
    ax.set_ylim(min(0.8, 0.9 * quartiles.min()), max(1.6, 1.2 * quartiles.max()))
    ax.set_title("A against itself")


def gain(times: pd.DataFrame, lengths: np.ndarray) -> Figure:
    """How many times faster each cache is, against tokens generated; bands: lowest to highest."""
    figure, (ax,) = panels()
    for contender in (GROWING, PREALLOCATED):
        look = CONTENDERS[contender]
        ratio = _ratio(times[times["tokens"].isin(lengths)], contender).groupby("tokens")
        ax.plot(ratio.median().index, ratio.median(), label=contender, **look)
        band(ax, ratio.min().index, ratio.min(), ratio.max(), look["color"])
    ax.axhline(1, **THEORY)
    log_axes(ax, tuple(int(n) for n in lengths))
    ax.set(xlabel="tokens generated", ylabel="times faster than without a cache")
    ax.set(title="What a cache gains", xlim=(None, lengths[-1]))
    _mark_rounds(ax, times)
    name_lines(ax, (1, "no gain", BLACK))
    return figure


def prefill(prefills: pd.DataFrame, fitted: tuple[float, float], model: nn.Module) -> Figure:
    """Time to run the prompt once, against its length, with and without filling a cache.

    `prefills` from `benchmark.prefill_times`; bars are quartiles.
    """
    overhead, rate = fitted
    figure, (ax,) = panels()
    for contender, part in prefills.groupby("contender", sort=False):
        look = CONTENDERS[contender]
        ax.plot(part["tokens"], 1e3 * part["median"], label=contender, **look)
        spread(ax, part["tokens"], 1e3 * part["low"], 1e3 * part["high"], look["color"])
    tokens = np.geomspace(prefills["tokens"].min(), prefills["tokens"].max(), 50)
    theory = [1e3 * (overhead + operations(model, int(n), int(n)) / rate) for n in tokens]
    ax.plot(tokens, theory, label="cost model", **THEORY)
    log_axes(ax, tuple(sorted(prefills["tokens"].unique())))
    ax.set(xlabel="tokens in the prompt", ylabel="time (ms)", title="Prefill: the prompt, run once")
    name_lines(ax)
    return figure


def growth(times: pd.DataFrame, lengths: np.ndarray, exponents: dict[str, tuple]) -> Figure:
    """Total time against tokens with the fitted power laws `exponents` (exponent, low, high).

    Bars reach from the lowest to the highest round.
    """
    figure, (ax,) = panels()
    table = totals(times, lengths)
    for contender, (exponent, low, high) in exponents.items():
        column = table[contender]
        seconds, look = column["median"], CONTENDERS[contender]
        label = f"{contender}:\nexponent {exponent:.2f}\n({low:.2f} to {high:.2f})"
        ax.plot(seconds.index, seconds, label=label, **(look | {"linestyle": ""}))
        spread(ax, seconds.index, column["min"], column["max"], look["color"])
        middle = np.exp(np.log(seconds).mean() - exponent * np.log(seconds.index.to_numpy()).mean())
        ax.plot(lengths, middle * lengths**exponent, **THEORY)
    log_axes(ax, tuple(int(n) for n in lengths[::2]))
    ax.set(xlabel="tokens generated", ylabel="total time (s)")
    ax.set_title("On logarithmic axes a power law is a straight line")
    name_lines(ax)
    return figure


def latency_sweep(
    times: pd.DataFrame,
    steps: pd.DataFrame,
    model: nn.Module,
    fitted: tuple[float, float],
    prompt_len: int,
) -> Figure:
    """Total time against tokens (left), time per token against position (right).

    `times` from `benchmark.sweep`, `steps` from `benchmark.per_token`, `fitted` from
    `benchmark.cost_model`. Points: the lengths of the sweep. Bands: lowest to highest round (left),
    quartiles (right). The ratio in the title and at the arrow is the median over the rounds that
    went so far, with the lowest and the highest if there is more than one.
    """
    figure, (left, right) = panels(2, height=TALL, width_ratios=(1.4, 1))
    figure.get_layout_engine().set(wspace=0.05)
    most = max(LENGTHS)
    tokens = np.arange(1, most + 1)
    top = _theory(left, right, tokens, model, fitted, prompt_len)
    whole = totals(times, tokens)
    for contender in times["contender"].unique():
        _measured(left, right, contender, whole[contender], steps)
    ratio = _ratio(times, PREALLOCATED).loc[most]
    slow, fast = (whole[contender]["median"][most] for contender in (NO_CACHE, PREALLOCATED))
    _arrow(left, most, (slow, fast), ratio)
    left.legend(fontsize=12)
    _mark_rounds(left, times, height=0.58)  # below the legend
    for ax in (left, right):
        ax.set(xlim=(0, 1.03 * most), ylim=(0, None), xticks=np.linspace(0, most, 5))
        ax.tick_params(labelsize=12)
    left.set_xlim(0, 1.09 * most)
    left.set_xlabel("tokens generated", fontsize=13)
    left.set_ylabel("total time (s)", fontsize=13)
    right.set_xlabel("position of the token", fontsize=13)
    right.set_ylabel("time for one token (ms)", fontsize=13)
    left.set_title("A whole text", fontsize=13)
    right.set_title("Each of its tokens", fontsize=13)
    figure.suptitle(_finding(most, ratio), fontsize=17, fontweight="bold", x=0.01, ha="left")
    name_lines(right, (top, "cost model", BLACK), size=12)
    return figure


def _theory(
    left: Axes,
    right: Axes,
    tokens: np.ndarray,
    model: nn.Module,
    fitted: tuple[float, float],
    prompt_len: int,
) -> float:
    """The cost model, without and with a cache; returns the last token's time with one (ms)."""
    overhead, rate = fitted
    for contender in (NO_CACHE, PREALLOCATED):
        cached = contender != NO_CACHE
        work = [operations(model, 1 if cached else n, n) for n in tokens + prompt_len - 1]
        seconds = overhead + np.array(work) / rate
        (law,) = left.plot(tokens, seconds.cumsum(), **THEORY)
        right.plot(tokens, 1e3 * seconds, **THEORY)
    law.set_label("cost model")
    return 1e3 * seconds[-1]


def _measured(
    left: Axes, right: Axes, contender: str, whole: pd.DataFrame, steps: pd.DataFrame
) -> None:
    """Total times of a contender, with points at the lengths of the sweep, and times per token."""
    look = CONTENDERS[contender] | {"linewidth": 2.6, "markersize": 8}
    tokens = whole.index
    points = np.searchsorted(tokens, LENGTHS)
    left.plot(tokens, whole["median"], label=contender, markevery=points, **look)
    band(left, tokens, whole["min"], whole["max"], look["color"])
    part = steps[steps["contender"] == contender]
    plain = look | {"marker": ""}
    right.plot(part["tokens"], 1e3 * part["median"], label=contender, **plain)
    band(right, part["tokens"], 1e3 * part["low"], 1e3 * part["high"], look["color"])


def _arrow(ax: Axes, most: int, ends: tuple[float, float], ratio: pd.Series) -> None:
    """An arrow between the two last points, and beside it how far they are apart."""
    beside = 1.06 * most  # the markers would hide the arrow's ends
    ax.hlines(ends, most, beside, color=BLACK, linewidth=0.8)
    arrow = {"arrowstyle": "<->", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", (beside, ends[0]), (beside, ends[1]), arrowprops=arrow)
    said = f"{ratio.median():.1f} times"
    if ratio.count() > 1:
        said += f"\n({ratio.min():.1f} to {ratio.max():.1f})"
    note = {"fontsize": 13, "fontweight": "bold", "annotation_clip": False} | OFFSET
    ax.annotate(said, (beside, sum(ends) / 2), (8, 0), va="center", **note)


def _finding(tokens: int, ratio: pd.Series) -> str:
    """What was measured, in a title: only a ratio that all rounds agree on counts as a gain."""
    if ratio.min() > 1:
        return f"{tokens} tokens: {ratio.median():.1f} times faster with a KV cache"
    if ratio.max() < 1:
        return f"{tokens} tokens: {1 / ratio.median():.1f} times slower with a KV cache"
    return f"{tokens} tokens: no clear difference with a KV cache"


def _mark_rounds(ax: Axes, times: pd.DataFrame, height: float = 1) -> None:
    """A line where some of the rounds end, and how many there are on either side of it.

    The line ends at this `height`, from 0 to 1, beside the words.
    """
    ends = times.groupby("round")["tokens"].max()
    for end in sorted(set(ends))[:-1]:
        ax.axvline(end, ymax=height, color=GREY, linestyle=":", linewidth=1.2)
        for places, going_on, side in ((-4, ends >= end, "right"), (4, ends > end, "left")):
            count = int(going_on.sum())
            text = f"{count} round" + "s" * (count > 1)
            note = {"ha": side, "va": "top", "fontsize": SMALL} | AT_X
            ax.annotate(text, (end, height), (places, -4), **note)


def _ratio(times: pd.DataFrame, cache: str) -> pd.Series:
    """Time without a cache over time with one, within each round: by tokens and round."""
    table = times.pivot(index=["tokens", "round"], columns="contender", values="total")
    return table[NO_CACHE] / table[cache]
