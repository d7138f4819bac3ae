"""The figures of many users: company, schedules, blocks, guesses (chapter 10)."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...plots.look import (
    BLACK,
    BLUE,
    CENTRED,
    GREEN,
    OFFSET,
    ORANGE,
    PALE,
    PURPLE,
    TALL,
    THEORY,
    curve,
    in_cell,
    log_x,
    name_lines,
    panels,
)
from .scheduling import Request, StepTimes

LOOKS = (
    curve(ORANGE, ":"),
    curve(GREEN),
    curve(BLUE, "--"),
    curve(PURPLE, "-."),
)


def company(times: StepTimes) -> Figure:
    """What a decoding step takes (left) and how many tokens a second it brings, by rows (right)."""
    figure, (left, right) = panels(2)
    rows, seconds = times.decode.index.to_numpy(), times.decode.to_numpy()
    left.plot(rows, 1e3 * seconds, **LOOKS[1])
    left.plot(rows, 1e3 * seconds[0] * rows, **THEORY)
    half_way = 1.1 * 1e3 * seconds[-1]
    at = (half_way / (1e3 * seconds[0]), half_way)
    left.annotate("one by one", at, (10, 0), **OFFSET)
    left.set(xlabel="rows in the batch", ylabel="time for a step (ms)", title="A step")
    left.set_ylim(0, 2.2 * 1e3 * seconds[-1])
    right.plot(rows, rows / seconds, **LOOKS[1])
    right.set(xlabel="rows in the batch", ylabel="tokens per second", title="What it brings")
    right.set_ylim(0, None)
    return figure


def timelines(schedules: dict[str, list[Request]], max_rows: int) -> Figure:
    """Who was in which row of the batch, and when; letters in the order of arrival.

    A request takes the first row that is free when it joins. From its last token to the end of its
    batch its row is hatched, if nobody else took it.
    """
    figure, axes = panels(1, len(schedules), sharex=True)
    axes = np.ravel(axes)
    end = max(request.times[-1] for requests in schedules.values() for request in requests)
    for ax, (title, requests) in zip(axes, schedules.items(), strict=True):
        free_from = [0.0] * max_rows
        for number, request in enumerate(requests):
            start, stop = request.times[0], request.times[-1]
            row = next(i for i in range(max_rows) if free_from[i] <= start)
            if start > free_from[row]:
                _bar(ax, row, free_from[row], start, {"color": "white", "hatch": "///"})
            free_from[row] = stop
            _bar(ax, row, start, stop, {"color": PALE[GREEN]})
            name = chr(ord("A") + number)
            ax.text((start + stop) / 2, row, name, **CENTRED)
        for row, since in enumerate(free_from):
            if since < max(free_from):
                _bar(ax, row, since, max(free_from), {"color": "white", "hatch": "///"})
        ax.set_yticks(range(max_rows), [f"row {i + 1}" for i in range(max_rows)])
        ax.set(title=title, xlim=(0, end))
        ax.invert_yaxis()
        ax.grid(False)
    axes[-1].set_xlabel("time (steps)")
    return figure


def _bar(ax: Axes, row: int, start: float, stop: float, look: dict) -> None:
    ax.barh(row, stop - start, left=start, height=0.8, edgecolor="black", linewidth=0.8, **look)


def load(found: pd.DataFrame) -> Figure:
    """Tokens a second that come out (left) and the wait per token (right), against what is asked.

    `found` has a row per run: policy, asked (tokens a second), tokens/s, latency and latency of
    the slowest 5 %.
    """
    figure, (left, right) = panels(2)
    ends = []
    for (policy, part), look in zip(found.groupby("policy", sort=False), LOOKS, strict=False):
        left.plot(part["asked"], part["tokens/s"], label=policy, **look)
        right.plot(part["asked"], 1e3 * part["latency"], label=policy, **look)
        faint = look | {"marker": "", "linewidth": 1}
        right.plot(part["asked"], 1e3 * part["latency of the slowest 5 %"], **faint)
        at_last = 1e3 * part["latency of the slowest 5 %"].iloc[-1]
        ends.append((at_last, "95th percentile", look["color"]))
    most = found["asked"].max()
    left.plot([0, most], [0, most], **THEORY)
    left.set(xlabel="tokens asked for, per second", ylabel="tokens per second")
    left.set(title="Throughput", xlim=(0, None), ylim=(0, None))
    right.set(xlabel="tokens asked for, per second", ylabel="wait per token (ms)", yscale="log")
    right.yaxis.set_major_formatter("{x:g}")
    right.minorticks_off()
    right.set(title="Latency: median, 95th percentile", xlim=(0, None))
    name_lines(left, (most, "all that is\nasked for", BLACK), size=11)
    name_lines(right, *ends, size=11)
    return figure


def blocks(
    stages: dict[str, tuple[list[list[str]], list[str]]], block_size: int, columns: int = 3
) -> Figure:
    """The pool, stage by stage: a row of places per block, the words in them, and who holds it.

    Each stage has the words of each block and a note for each block.
    """
    figure, axes = panels(columns, -(-len(stages) // columns), height=TALL)
    for ax in axes.flat[len(stages) :]:
        ax.set_visible(False)
    for ax, (title, (words, notes)) in zip(axes.flat, stages.items(), strict=False):
        ax.grid(False)
        for block, (row, note) in enumerate(zip(words, notes, strict=True)):
            _places(ax, block, row, note, block_size)
            ax.text(block_size + 0.1, block, note, va="center")
        ax.set_yticks(range(len(words)), [f"block {i}" for i in range(len(words))], fontsize=11)
        ax.set(title=title, xlim=(0, block_size + 1.2), ylim=(len(words) - 0.5, -0.5), xticks=[])
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    return figure


def _places(ax: Axes, block: int, words: list[str], note: str, block_size: int) -> None:
    """The places of a block: dark if it is shared, pale if one holds it, hatched where empty."""
    color = GREEN if "," in note else PALE[GREEN] if note else "white"
    for place in range(block_size):
        full = place < len(words)
        look = {"facecolor": color if full else "white", "edgecolor": "black"}
        look |= {"hatch": "" if full or not note else "///", "linewidth": 0.8}
        ax.add_patch(plt.Rectangle((place, block - 0.4), 1, 0.8, **look))
        if full:
            in_cell(ax, block, place + 0.5, words[place], dark=color == GREEN, size=None)


def fragmentation(found: pd.DataFrame) -> Figure:
    """Share of held places that hold nothing (left), requests at once (right), by block size.

    `found`: index block size; wasted (0 to 1), rows (mean), predicted (places wasted at the end of
    a table, (block size - 1) / 2, as a share).
    """
    figure, (left, right) = panels(2)
    left.plot(found.index, 100 * found["wasted"], label="counted", **LOOKS[1])
    left.plot(found.index, 100 * found["predicted"], label="half a block each", **THEORY)
    right.plot(found.index, found["rows"], **LOOKS[1])
    left.set(ylabel="places held for nothing (%)", title="Waste", ylim=(0, 100))
    right.set(ylabel="requests at once, on average", title="In the same memory", ylim=(0, None))
    for ax in (left, right):
        log_x(ax, found.index)
        ax.set_xlabel("positions in a block")
    left.legend(loc="upper left")
    return figure


def speculation(found: pd.DataFrame) -> Figure:
    """Tokens that a pass brings (left) and times as fast as without (right), by guesses.

    `found` has draft, guesses, tokens (per pass) and faster.
    """
    figure, (left, right) = panels(2)
    for (draft, part), look in zip(found.groupby("draft", sort=False), LOOKS, strict=False):
        left.plot(part["guesses"], part["tokens"], label=draft, **look)
        right.plot(part["guesses"], part["faster"], label=draft, **look)
    guesses = np.sort(found["guesses"].unique())
    left.plot(guesses, guesses + 1, **THEORY)
    right.axhline(1, **THEORY)
    left.set(ylabel="tokens per pass", title="What a pass brings", ylim=(1, guesses[-1] + 1.2))
    right.set(ylabel="times as fast as without", title="What it gains", ylim=(0, None))
    for ax in (left, right):
        ax.set(xlabel="guesses per pass", xticks=guesses)
    name_lines(left, (guesses[-1] + 1, "all right", BLACK), size=11)
    name_lines(right, (1, "no gain", BLACK), size=11)
    return figure


def widths(found: pd.DataFrame) -> Figure:
    """Time of a pass over several tokens of each row, in passes over one, by number of rows.

    `found`: index tokens per row, a column of times per number of rows.
    """
    figure, (ax,) = panels()
    for rows, look in zip(found, LOOKS, strict=False):
        name = "1 row" if rows == 1 else f"{rows} rows"
        ax.plot(found.index, found[rows] / found[rows].iloc[0], label=name, **look)
    ax.plot(found.index, found.index, **THEORY)
    ax.set(xlabel="tokens of each row in the pass", ylabel="time, in passes over one token")
    ax.set(title="What it takes to check guesses", ylim=(0, None))
    ax.set_xticks(found.index)
    name_lines(ax, (found.index[-1], "no gain\nfrom guessing", BLACK))
    return figure


def distributions(
    exact: np.ndarray, shares: dict[str, np.ndarray], names: list[str], draws: int
) -> Figure:
    """How far the share of each outcome is off its probability, a panel per way of drawing.

    In standard errors of a share of `draws`; the band is two of them. The axis is linear up to 4
    and logarithmic beyond.
    """
    figure, axes = panels(len(shares), sharey=True)
    error = np.sqrt(exact * (1 - exact) / draws)
    at = np.arange(len(exact))
    for ax, (title, share) in zip(axes, shares.items(), strict=True):
        ax.axhspan(-2, 2, color="0.85")
        ax.bar(at, (share - exact) / error, color=GREEN, edgecolor="black", width=0.7)
        ax.set_yscale("symlog", linthresh=4)
        ax.set(title=title, ylim=(-300, 300), xlabel="text of two tokens")
        ax.set_yticks([-100, -10, -2, 0, 2, 10, 100], [-100, -10, -2, 0, 2, 10, 100])
        ax.minorticks_off()
        ax.set_xticks(at, names, rotation=90)
    axes[0].set_ylabel("off by (standard errors)")
    return figure
