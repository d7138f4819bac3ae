"""The figures of chapter 09: the look is that of `course_utils.plots`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plots import _OFFSET, SIZE, THEORY, _figure
from .serving import Request, StepTimes

LOOKS = (
    {"color": "#D55E00", "linestyle": ":", "marker": "o"},
    {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    {"color": "#009E73", "linestyle": "-", "marker": "^"},
    {"color": "#CC79A7", "linestyle": "-.", "marker": "D"},
)


def company(times: StepTimes) -> Figure:
    """What a decoding step takes (left) and how many tokens a second it brings, by rows (right)."""
    figure, (left, right) = _figure(2)
    rows, seconds = times.decode.index.to_numpy(), times.decode.to_numpy()
    left.plot(rows, 1e3 * seconds, **LOOKS[1])
    left.plot(rows, 1e3 * seconds[0] * rows, **THEORY)
    half_way = 1.1 * 1e3 * seconds[-1]
    left.annotate("one by one", (half_way / (1e3 * seconds[0]), half_way), (8, 0), **_OFFSET)
    left.set(xlabel="rows in the batch", ylabel="time for a step (ms)", title="A step")
    left.set_ylim(0, 2.2 * 1e3 * seconds[-1])
    right.plot(rows, rows / seconds, **LOOKS[1])
    right.set(xlabel="rows in the batch", ylabel="tokens per second", title="What it brings")
    right.set_ylim(0, None)
    return figure


def timelines(panels: dict[str, list[Request]], max_rows: int) -> Figure:
    """Who was in which row of the batch, and when; letters in the order of arrival.

    A request takes the first row that is free when it joins. From its last token to the end of its
    batch its row is hatched, if nobody else took it.
    """
    figure, axes = plt.subplots(
        len(panels), 1, figsize=SIZE, layout="constrained", sharex=True, squeeze=False
    )
    end = max(request.times[-1] for requests in panels.values() for request in requests)
    for ax, (title, requests) in zip(axes[:, 0], panels.items(), strict=True):
        free_from = [0.0] * max_rows
        for number, request in enumerate(requests):
            start, stop = request.times[0], request.times[-1]
            row = next(i for i in range(max_rows) if free_from[i] <= start)
            if start > free_from[row]:
                _bar(ax, row, free_from[row], start, {"color": "white", "hatch": "///"})
            free_from[row] = stop
            _bar(ax, row, start, stop, {"color": ("#9ECAE1", "#C9E4DA")[number % 2]})
            name = chr(ord("A") + number)
            ax.text((start + stop) / 2, row, name, ha="center", va="center")
        for row, since in enumerate(free_from):
            if since < max(free_from):
                _bar(ax, row, since, max(free_from), {"color": "white", "hatch": "///"})
        ax.set_yticks(range(max_rows), [f"row {i + 1}" for i in range(max_rows)])
        ax.set(title=title, xlim=(0, end))
        ax.spines[["top", "right"]].set_visible(False)
        ax.invert_yaxis()
    axes[-1, 0].set_xlabel("time (steps)")
    return figure


def _bar(ax: Axes, row: int, start: float, stop: float, look: dict) -> None:
    ax.barh(row, stop - start, left=start, height=0.8, edgecolor="black", linewidth=0.8, **look)


def load(found: pd.DataFrame) -> Figure:
    """Tokens a second that come out (left) and the wait per token (right), against what is asked.

    `found` has a row per run: policy, asked (tokens a second), tokens/s, latency and latency of
    the slowest 5 %.
    """
    figure, (left, right) = _figure(2)
    for (policy, part), look in zip(found.groupby("policy", sort=False), LOOKS, strict=False):
        left.plot(part["asked"], part["tokens/s"], label=policy, **look)
        right.plot(part["asked"], 1e3 * part["latency"], label=policy, **look)
        faint = look | {"marker": "", "linewidth": 0.8}
        right.plot(part["asked"], 1e3 * part["latency of the slowest 5 %"], **faint)
    most = found["asked"].max()
    left.plot([0, most], [0, most], **THEORY)
    left.annotate("all that is asked for", (0.5 * most, 0.5 * most), (-6, 6), ha="right", **_OFFSET)
    left.set(xlabel="tokens asked for, per second", ylabel="tokens per second")
    left.set(title="Throughput", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="tokens asked for, per second", ylabel="wait per token (ms)", yscale="log")
    right.set(title="Latency: median, and 95th percentile (thin)", xlim=(0, None))
    left.legend(frameon=False)
    return figure


def blocks(
    stages: dict[str, tuple[list[list[str]], list[str]]], block_size: int, columns: int = 3
) -> Figure:
    """The pool, stage by stage: a row of places per block, the words in them, and who holds it.

    Each stage has the words of each block and a note for each block.
    """
    figure, axes = plt.subplots(
        -(-len(stages) // columns), columns, figsize=SIZE, layout="constrained", squeeze=False
    )
    for ax in axes.flat[len(stages) :]:
        ax.set_visible(False)
    for ax, (title, (words, notes)) in zip(axes.flat, stages.items(), strict=False):
        for block, (row, note) in enumerate(zip(words, notes, strict=True)):
            color = "#C9E4DA" if "," in note else "#9ECAE1" if note else "white"
            for place in range(block_size):
                full = place < len(row)
                look = {"facecolor": color if full else "white", "edgecolor": "black"}
                look |= {"hatch": "" if full or not note else "///", "linewidth": 0.8}
                ax.add_patch(plt.Rectangle((place, block - 0.4), 1, 0.8, **look))
                if full:
                    at = (place + 0.5, block)
                    ax.text(*at, row[place], ha="center", va="center", fontsize=7)
            ax.text(block_size + 0.1, block, note, va="center", fontsize=8)
        ax.set_yticks(range(len(words)), [f"block {i}" for i in range(len(words))], fontsize=8)
        ax.set(title=title, xlim=(0, block_size + 1.2), ylim=(len(words) - 0.5, -0.5), xticks=[])
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    return figure


def fragmentation(found: pd.DataFrame) -> Figure:
    """Share of held places that hold nothing (left), requests at once (right), by block size.

    `found`: index block size; wasted (0 to 1), rows (mean), predicted (places wasted at the end of
    a table, (block size - 1) / 2, as a share).
    """
    figure, (left, right) = _figure(2)
    left.plot(found.index, 100 * found["wasted"], label="measured", **LOOKS[1])
    left.plot(found.index, 100 * found["predicted"], label="half a block each", **THEORY)
    right.plot(found.index, found["rows"], **LOOKS[2])
    left.set(ylabel="places held for nothing (%)", title="Waste", ylim=(0, 100))
    right.set(ylabel="requests at once, on average", title="In the same memory", ylim=(0, None))
    for ax in (left, right):
        ax.set(xscale="log", xlabel="positions in a block")
        ax.set_xticks(found.index, found.index)
        ax.minorticks_off()
    left.legend(frameon=False)
    return figure


def speculation(found: pd.DataFrame) -> Figure:
    """Tokens that a pass brings (left) and times as fast as without (right), by guesses.

    `found` has draft, guesses, tokens (per pass) and faster.
    """
    figure, (left, right) = _figure(2)
    for (draft, part), look in zip(found.groupby("draft", sort=False), LOOKS, strict=False):
        left.plot(part["guesses"], part["tokens"], label=draft, **look)
        right.plot(part["guesses"], part["faster"], label=draft, **look)
    guesses = np.sort(found["guesses"].unique())
    left.plot(guesses, guesses + 1, **THEORY)
    left.annotate("all right", (guesses[1], guesses[1] + 1), (-6, 4), ha="right", **_OFFSET)
    right.axhline(1, **THEORY)
    left.set(ylabel="tokens per pass", title="What a pass brings", ylim=(1, guesses[-1] + 1.2))
    right.set(ylabel="times as fast as without", title="What it gains", ylim=(0, None))
    for ax in (left, right):
        ax.set(xlabel="guesses per pass", xticks=guesses)
    names = right.get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=4, frameon=False)
    return figure


def widths(found: pd.DataFrame) -> Figure:
    """Time of a pass over several tokens of each row, in passes over one, by number of rows.

    `found`: index tokens per row, a column of times per number of rows.
    """
    figure, (ax,) = _figure()
    for rows, look in zip(found, LOOKS, strict=False):
        name = "1 row" if rows == 1 else f"{rows} rows"
        ax.plot(found.index, found[rows] / found[rows].iloc[0], label=name, **look)
    ax.plot(found.index, found.index, **THEORY)
    ax.annotate("no gain from guessing", (found.index[-2], found.index[-2]), (-6, 4), ha="right",
                **_OFFSET)  # fmt: skip
    ax.set(xlabel="tokens of each row in the pass", ylabel="time, in passes over one token")
    ax.set(title="What it takes to check guesses", ylim=(0, None))
    ax.set_xticks(found.index)
    ax.legend(frameon=False)
    return figure


def distributions(
    exact: np.ndarray, shares: dict[str, np.ndarray], names: list[str], draws: int
) -> Figure:
    """How far the share of each outcome is off its probability, a panel per way of drawing.

    In standard errors of a share of `draws`; the band is two of them. The axis is linear up to 4
    and logarithmic beyond.
    """
    figure, axes = _figure(len(shares))
    error = np.sqrt(exact * (1 - exact) / draws)
    at = np.arange(len(exact))
    for ax, (title, share) in zip(axes, shares.items(), strict=True):
        ax.axhspan(-2, 2, color="0.85")
        ax.bar(at, (share - exact) / error, color="#0072B2", edgecolor="black", width=0.7)
        ax.set_yscale("symlog", linthresh=4)
        ax.set(title=title, ylim=(-300, 300), xlabel="text of two tokens")
        ax.set_yticks([-100, -10, -2, 0, 2, 10, 100], [-100, -10, -2, 0, 2, 10, 100])
        ax.minorticks_off()
        ax.set_xticks(at, names, fontsize=7, rotation=90)
    axes[0].set_ylabel("off by (standard errors)")
    return figure
