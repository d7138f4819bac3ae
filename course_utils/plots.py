"""Every figure of the course: one size, one look, readable in greyscale.

Each function takes measured data and returns a matplotlib figure; nothing here measures anything.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor, nn

from .benchmark import CACHES, GROWING, LENGTHS, NO_CACHE, PREALLOCATED, operations, totals

SIZE = (9.0, 4.2)
LOOK = {
    NO_CACHE: {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    GROWING: {"color": "#0072B2", "linestyle": "-", "marker": "s"},
    PREALLOCATED: {"color": "#009E73", "linestyle": "-", "marker": "^"},
}
_OFFSET = {"textcoords": "offset points"}
THEORY = {"color": "black", "linestyle": (0, (4, 3)), "linewidth": 1.2}


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook, once, with `alt` for those who cannot see it."""
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def _figure(panels: int = 1) -> tuple[Figure, np.ndarray]:
    figure, axes = plt.subplots(1, panels, figsize=SIZE, layout="constrained", squeeze=False)
    for ax in axes[0]:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    return figure, axes[0]


def _log_axes(ax: Axes, ticks: tuple[int, ...]) -> None:
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def latency_sweep(
    times: pd.DataFrame,
    steps: pd.DataFrame,
    model: nn.Module,
    fitted: tuple[float, float],
    prompt_len: int,
) -> Figure:
    """Total time against tokens (left), time per token against position (right).

    `times` from `benchmark.sweep`, `steps` from `benchmark.per_token`, `fitted` from
    `benchmark.cost_model`. Bands: lowest to highest round (left), quartiles (right).
    """
    overhead, rate = fitted
    figure, (left, right) = _figure(2)
    table = totals(times, LENGTHS)
    tokens = np.arange(1, max(LENGTHS) + 1)
    theory = {}
    for contender in (NO_CACHE, PREALLOCATED):
        cached = contender != NO_CACHE
        work = [operations(model, 1 if cached else n, n) for n in tokens + prompt_len - 1]
        theory[contender] = overhead + np.array(work) / rate
        left.plot(tokens[9:], theory[contender].cumsum()[9:], **THEORY)
        right.plot(tokens, 1e3 * theory[contender], **THEORY)
    for contender in times["contender"].unique():
        look = LOOK[contender]
        column = table[contender]
        left.plot(column.index, column["median"], **look)
        band = {"color": look["color"], "alpha": 0.2}
        left.fill_between(column.index, column["min"], column["max"], **band)
        part = steps[steps["contender"] == contender]
        plain = look | {"marker": ""}
        right.plot(part["tokens"], 1e3 * part["median"], **plain)
        right.fill_between(part["tokens"], 1e3 * part["low"], 1e3 * part["high"], **band)
    _log_axes(left, LENGTHS)
    left.set(xlabel="tokens generated", ylabel="total time (s)", title="A whole generation")
    right.set(xlabel="position of the token", ylabel="time for one token (ms)", ylim=(0, None))
    right.set_title("Each of its tokens")
    figure.legend(
        handles=[
            *(plt.Line2D([], [], label=contender, **LOOK[contender]) for contender in CACHES),
            plt.Line2D([], [], label="cost model", **THEORY),
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    return figure


def prefill(prefills: pd.DataFrame, fitted: tuple[float, float], model: nn.Module) -> Figure:
    """Time to run the prompt once, against its length, with and without filling a cache.

    `prefills` from `benchmark.prefill_times`; error bars are quartiles.
    """
    overhead, rate = fitted
    figure, (ax,) = _figure()
    for contender, part in prefills.groupby("contender", sort=False):
        spread = 1e3 * np.array([part["median"] - part["low"], part["high"] - part["median"]])
        look = LOOK[contender]
        ax.errorbar(part["tokens"], 1e3 * part["median"], spread, label=contender, **look)
    tokens = np.geomspace(prefills["tokens"].min(), prefills["tokens"].max(), 50)
    theory = [1e3 * (overhead + operations(model, int(n), int(n)) / rate) for n in tokens]
    ax.plot(tokens, theory, label="cost model", **THEORY)
    _log_axes(ax, tuple(sorted(prefills["tokens"].unique())))
    ax.set(xlabel="tokens in the prompt", ylabel="time (ms)", title="Prefill: the prompt, run once")
    ax.legend(frameon=False)
    return figure


def growth(times: pd.DataFrame, lengths: np.ndarray, exponents: dict[str, tuple]) -> Figure:
    """Total time against tokens with the fitted power laws `exponents` (exponent, low, high)."""
    figure, (ax,) = _figure()
    for contender, (exponent, low, high) in exponents.items():
        seconds = totals(times, lengths)[contender]["median"]
        label = f"{contender}: exponent {exponent:.2f} ({low:.2f} to {high:.2f})"
        ax.plot(seconds.index, seconds, label=label, **(LOOK[contender] | {"linestyle": ""}))
        middle = np.exp(np.log(seconds).mean() - exponent * np.log(seconds.index.to_numpy()).mean())
        ax.plot(lengths, middle * lengths**exponent, **THEORY)
    _log_axes(ax, tuple(int(n) for n in lengths[::2]))
    ax.set(xlabel="tokens generated", ylabel="total time (s)")
    ax.set_title("On logarithmic axes a power law is a straight line")
    ax.legend(frameon=False)
    return figure


def training(log: pd.DataFrame) -> Figure:
    """Loss and recall against training steps; `log` is written by `course_utils.train`."""
    figure, (left, right) = _figure(2)
    for _, stage in log.groupby("stage", sort=False):
        left.plot(stage["step"], stage["loss"], color="#0072B2")
        right.plot(stage["step"], stage["recall"], color="#009E73")
    for ax, height in ((left, 0.6), (right, 0.02)):
        for name, stage in log.groupby("stage", sort=False):
            start = stage["step"].min()
            ax.axvline(start, color="0.7", linewidth=0.8)
            at = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            ax.annotate(name, (start, height), (2, 0), rotation=90, fontsize=8, color="0.3", **at)
    left.set(xlabel="training step", ylabel="loss (nats per token)", title="Loss", ylim=(0, None))
    right.set(xlabel="training step", ylabel="share right", ylim=(0, 1.02))
    right.set_title("Repeated tokens, then words of answers")
    return figure


def softmax_overflow(scales: Tensor, weights: dict[str, Tensor]) -> Figure:
    """The larger of two weights against the distance of their scores; NaN breaks the line off.

    `weights` holds one tensor (one number per scale) for each way of computing the softmax.
    """
    figure, (ax,) = _figure()
    styles = [
        LOOK[NO_CACHE] | {"marker": ""},
        LOOK[PREALLOCATED] | {"marker": "", "linestyle": ":"},
    ]
    for (name, values), style in zip(weights.items(), styles, strict=True):
        ax.plot(scales, values, label=name, linewidth=3, **style)
        broken = values.isnan().nonzero()
        if len(broken):
            start = scales[broken[0, 0]].item()
            ax.axvspan(start, scales[-1].item(), color="0.9", zorder=0)
            ax.annotate(f"{name}: NaN from {start:.0f} on", (start, 0.7), (6, 0), **_OFFSET)
    ax.set(xlabel="the two scores are 0 and this", ylabel="weight of the larger score")
    ax.set_title("The softmax that overflows, and the one that does not")
    ax.legend(frameon=False, loc="lower right")
    return figure


def attention_steps(tokens: list[str], scores: Tensor, masked: Tensor, weights: Tensor) -> Figure:
    """Scores, masked scores and weights (T, T) side by side, each number written in its cell."""
    figure, axes = _figure(3)
    titles = ("scores", "masked scores", "weights: each row sums to 1")
    for ax, title, matrix in zip(axes, titles, (scores, masked, weights), strict=True):
        darkest = 1.3 * matrix[matrix.isfinite()].max()
        ax.imshow(matrix, cmap="Greys", vmin=0, vmax=darkest)
        for (row, column), value in np.ndenumerate(matrix.numpy()):
            text = f"{value:.1f}" if np.isfinite(value) else "−∞"
            color = "white" if value > darkest / 2 else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=color)
        ax.set_xticks(range(len(tokens)), tokens, rotation=60)
        ax.set_yticks(range(len(tokens)), tokens)
        ax.set(title=title, xlabel="key")
        ax.grid(False)
    axes[0].set_ylabel("query")
    return figure


def all_heads(maps: Tensor) -> Figure:
    """Attention weights (num_layers, H, T, T): one small map per head, layers downwards."""
    num_layers, num_heads = maps.shape[:2]
    size = (SIZE[0], SIZE[0] * num_layers / num_heads)
    figure, axes = plt.subplots(num_layers, num_heads, figsize=size, layout="constrained")
    for (layer, head), ax in np.ndenumerate(axes):
        ax.imshow(maps[layer, head] ** 0.5, cmap="Greys", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=f"layer {layer + 1}, head {head + 1}")
    figure.supxlabel("key (first token to last)")
    figure.supylabel("query (last token to first)")
    return figure


def lookup(tokens: list[str], rows: dict[str, Tensor], marked: dict[str, int]) -> Figure:
    """Where the last token looks: one panel per head, a bar per token, one bar hatched and named.

    `rows` holds weights (T,) by title; `marked` the position to point at, by the same title.
    """
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(SIZE[0], 1.3 * SIZE[1]), layout="constrained", sharex=True
    )
    for ax, (title, weights) in zip(axes, rows.items(), strict=True):
        bars = ax.bar(range(len(tokens)), weights, color="0.6")
        at = marked[title]
        bars[at].set(color="#009E73", hatch="//", edgecolor="black")
        ax.annotate(
            f"{tokens[at]} {weights[at]:.2f}", (at, weights[at]), (0, 3), ha="center", **_OFFSET
        )
        ax.set(title=title, ylabel="weight", ylim=(0, 1.15))
        ax.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8)
    return figure


def parameter_shares(counts: dict[str, int]) -> Figure:
    """One bar per part of the model: how many parameters it has."""
    figure, (ax,) = _figure()
    names, numbers = list(counts), list(counts.values())
    bars = ax.barh(names, numbers, color="#0072B2")
    ax.bar_label(bars, [f"{n:,} ({n / sum(numbers):.0%})" for n in numbers], padding=4)
    ax.set(xlabel="parameters", xlim=(0, 1.25 * max(numbers)))
    ax.set_title(f"Where the {sum(numbers):,} parameters are")
    ax.invert_yaxis()
    return figure


def stream(probabilities: dict[str, list[float]], sizes: dict[str, list[float]]) -> Figure:
    """The residual stream after each layer: what it would answer (left), what was added (right).

    `probabilities` holds, for each word, its probability after 0, 1, ... layers; `sizes` the length
    of what attention and feed-forward added in each layer.
    """
    figure, (left, right) = _figure(2)
    styles = zip("o^s", ("-", "--", ":"), ("#009E73", "#D55E00", "#0072B2"), strict=True)
    for (word, values), (marker, line, color) in zip(probabilities.items(), styles, strict=True):
        left.plot(values, marker=marker, linestyle=line, color=color, label=word)
    left.set(xlabel="layers run", ylabel="probability of the word", ylim=(-0.03, 1.03))
    left.set_title("What the stream would say")
    left.set_xticks(range(len(values)))
    left.legend(frameon=False)
    layers = np.arange(1, len(next(iter(sizes.values()))) + 1)
    looks = ((-0.2, "#0072B2", ""), (0.2, "#D55E00", "//"))
    for (part, lengths), (shift, color, hatch) in zip(sizes.items(), looks, strict=True):
        look = {"color": color, "hatch": hatch, "edgecolor": "black", "label": part}
        right.bar(layers + shift, lengths, 0.4, **look)
    right.set(xlabel="layer", ylabel="length of the vector added", title="What each part adds")
    right.set_xticks(layers)
    right.legend(frameon=False)
    return figure


def temperatures(words: list[str], probabilities: dict[float, Tensor]) -> Figure:
    """The likeliest words at several temperatures: one panel each, a bar per word."""
    figure, axes = _figure(len(probabilities))
    highest = max(p.max().item() for p in probabilities.values())
    for ax, (temperature, shares) in zip(axes, probabilities.items(), strict=True):
        ax.barh(words, shares, color="#0072B2")
        ax.set(title=f"temperature {temperature:g}", xlim=(0, 1.1 * highest))
        ax.set_xlabel("probability")
        ax.invert_yaxis()
    return figure


def cuts(places: dict[str, tuple[list[str], Tensor, int, int]]) -> Figure:
    """What top-k and top-p keep: a panel per place, the cuts drawn between the ordered words.

    `places` holds, by title: words in order, their probabilities, how many each of the two keeps.
    """
    figure, axes = _figure(len(places))
    for ax, (title, (words, shares, by_k, by_p)) in zip(axes, places.items(), strict=True):
        ax.barh(words, shares, color="0.6")
        for kept, name, color, line in (
            (by_k, "top-k", "#0072B2", "--"),
            (by_p, "top-p", "#D55E00", "-"),
        ):
            ax.axhline(kept - 0.5, color=color, linestyle=line, linewidth=2)
            at = (1.1 * shares.max().item(), kept - 0.5)
            ax.annotate(f"{name} keeps {kept}", at, (0, -12), ha="right", color=color, **_OFFSET)
        ax.set(title=title, xlabel="probability", xlim=(0, 1.1 * shares.max().item()))
        ax.invert_yaxis()
    return figure


def repeated_work(tokens: np.ndarray, needed: np.ndarray, repeated: np.ndarray) -> Figure:
    """Operations per step without a cache: for the newest token, and repeated (hatched)."""
    figure, (ax,) = _figure()
    million = 1e6
    ax.bar(
        tokens,
        repeated / million,
        bottom=needed / million,
        color="#F3C9AE",
        edgecolor="#D55E00",
        hatch="//",
        width=0.8,
        label="done before, and done again",
    )
    ax.bar(tokens, needed / million, color="#0072B2", width=0.8, label="for the newest token")
    ax.set(xlabel="tokens in the text", ylabel="operations (millions)")
    ax.set_title("One step without a cache")
    ax.legend(frameon=False, loc="upper left")
    return figure


def step_times(times: pd.DataFrame) -> Figure:
    """Time of one forward pass over the whole text; columns tokens, median, low, high (seconds)."""
    figure, (ax,) = _figure()
    spread = 1e3 * np.array([times["median"] - times["low"], times["high"] - times["median"]])
    ax.errorbar(times["tokens"], 1e3 * times["median"], spread, **LOOK[NO_CACHE])
    ax.set(xlabel="tokens in the text", ylabel="time for one more word (ms)", ylim=(0, None))
    ax.set_title("Writing gets slower as the text gets longer")
    return figure


def what_changes(differences: dict[str, Tensor], tokens: list[str]) -> Figure:
    """How far the stored keys move when one token is added: (num_layers, T) per panel, by title.

    The last column of each panel is the added token, which had no key before (hatched).
    """
    figure, axes = _figure(len(differences))
    for ax, (title, moved) in zip(axes, differences.items(), strict=True):
        num_layers, num_tokens = moved.shape
        ax.imshow((moved > 1e-9).float(), cmap="Greys", vmin=0, vmax=3, aspect="auto")
        new = {"fill": False, "hatch": "////", "edgecolor": "#009E73"}
        ax.add_patch(plt.Rectangle((num_tokens - 0.5, -0.5), 1, num_layers, **new))
        for (layer, token), value in np.ndenumerate(moved.numpy()):
            ax.text(token, layer, f"{value:.2f}", ha="center", va="center", fontsize=7)
        ax.set_xticks(range(num_tokens + 1), tokens, rotation=90, fontsize=8)
        ax.set_yticks(range(num_layers), [f"layer {i + 1}" for i in range(num_layers)])
        ax.set(title=title, xlim=(-0.5, num_tokens + 0.5))
        ax.grid(False)
    return figure


def masks(panels: dict[str, tuple[Tensor, list[str], list[str]]]) -> Figure:
    """Boolean masks (Q, K) side by side, with the words of their rows and columns, by title."""
    widths = [mask.size(1) for mask, _, _ in panels.values()]
    figure, axes = plt.subplots(
        1, len(panels), figsize=SIZE, layout="constrained", width_ratios=widths
    )
    for ax, (title, (mask, queries, keys)) in zip(axes, panels.items(), strict=True):
        ax.imshow(mask, cmap="Greys", vmin=-0.4, vmax=1.4)
        for (row, column), seen in np.ndenumerate(mask.numpy()):
            color = "white" if seen else "black"
            ax.text(column, row, "sees" if seen else "−∞", ha="center", va="center", color=color)
        ax.set_xticks(range(len(keys)), keys, rotation=60)
        ax.set_yticks(range(len(queries)), queries)
        ax.set(title=title, xlabel="key")
        ax.grid(False)
    axes[0].set_ylabel("query")
    return figure


def filling(portions: list[int], tokens: list[str]) -> Figure:
    """The cache after each call: what was read (grey), what was written (hatched)."""
    figure, (ax,) = _figure()
    stored = 0
    for call, portion in enumerate(portions):
        ax.barh(call, stored, color="0.75", height=0.8)
        look = {"color": "#C9E4DA", "hatch": "//", "edgecolor": "#009E73", "height": 0.8}
        ax.barh(call, portion, left=stored, **look)
        stored += portion
    names = [f"prefill: {portions[0]} in", *(f"decode: {n} in" for n in portions[1:])]
    ax.set_yticks(range(len(portions)), names, fontsize=8)
    ax.set_xticks(np.arange(len(tokens)) + 0.5, tokens, rotation=90, fontsize=8)
    ax.set(xlim=(0, len(tokens)), title="Keys and values in the cache, call by call")
    ax.legend(
        handles=[
            plt.Rectangle((0, 0), 1, 1, color="0.75", label="read"),
            plt.Rectangle(
                (0, 0), 1, 1, facecolor="#C9E4DA", hatch="//", edgecolor="#009E73", label="written"
            ),
        ],
        loc="upper right",
        frameon=False,
    )
    ax.invert_yaxis()
    ax.grid(False)
    return figure


def cache_bytes(
    predicted: dict[str, list[int]], allocated: dict[str, list[int]], tokens: list[int]
) -> Figure:
    """Bytes of each cache against the tokens it holds: formula (dashed), allocated (points)."""
    figure, (ax,) = _figure()
    for name, numbers in allocated.items():
        ax.plot(tokens, np.array(predicted[name]) / 1e6, **THEORY)
        ax.plot(tokens, np.array(numbers) / 1e6, label=name, **(LOOK[name] | {"linestyle": ""}))
    ax.plot([], [], label="predicted", **THEORY)
    ax.set(xlabel="tokens in the cache", ylabel="memory (MB)", ylim=(0, None))
    ax.set_title("Bytes, predicted and allocated")
    ax.legend(frameon=False)
    return figure


def recall_bars(right: dict[str, int], questions: int) -> Figure:
    """How many questions each model answers right: a bar with its number, per name."""
    figure, (ax,) = _figure()
    names, numbers = list(right), list(right.values())
    colors = ["#009E73"] + ["#D55E00"] * (len(names) - 1)
    hatches = [""] + ["//"] * (len(names) - 1)
    bars = ax.barh(names, numbers, color=colors, hatch=hatches, edgecolor="black")
    ax.bar_label(bars, [f"{n} of {questions}" for n in numbers], padding=4)
    ax.set(xlabel="questions answered right", xlim=(0, 1.15 * questions))
    ax.set_title("Where is it? Answers decoded from the cache")
    ax.invert_yaxis()
    return figure


def fooled_clocks(calls: list[float], blocks: tuple, turns: tuple, ratios: list[float]) -> Figure:
    """What goes wrong without warm-up, without taking turns, and without repetition.

    `calls`: seconds of the first calls in a fresh process. `blocks`, `turns`: two lists of seconds
    of the same contender, run one after the other or in turn. `ratios`: single measurements.
    """
    figure, (left, middle, right) = _figure(3)
    left.bar(range(1, len(calls) + 1), 1e3 * np.array(calls), color="0.6")
    left.patches[0].set(facecolor="#D55E00", hatch="//", edgecolor="black")
    left.set(xlabel="call in a fresh process", ylabel="time (ms)", title="No warm-up")
    pairs = {"in blocks": blocks, "in turns": turns}
    found = [np.median(np.array(second) / np.array(first)) for first, second in pairs.values()]
    bars = middle.bar(list(pairs), found, color=["#D55E00", "#009E73"], edgecolor="black")
    bars[0].set(hatch="//")
    middle.bar_label(bars, [f"{value:.2f}" for value in found], padding=3)
    middle.axhline(1, **THEORY)
    middle.set(ylabel="time of A again / time of A", ylim=(0, 1.15 * max(found)))
    middle.set_title("A against itself")
    right.hist(ratios, bins=12, color="0.6", edgecolor="white")
    right.axvline(np.median(ratios), **THEORY)
    right.set(xlabel="no cache / cache, 10 tokens", ylabel="measurements", title="One by one")
    return figure


def gain(times: pd.DataFrame, lengths: np.ndarray) -> Figure:
    """How many times faster each cache is, against tokens generated; bands: lowest to highest."""
    figure, (ax,) = _figure()
    chosen = times[times["tokens"].isin(lengths)]
    table = chosen.pivot(index=["tokens", "round"], columns="contender", values="total")
    for contender in (GROWING, PREALLOCATED):
        ratio = (table[NO_CACHE] / table[contender]).groupby("tokens")
        ax.plot(ratio.median().index, ratio.median(), label=contender, **LOOK[contender])
        band = {"color": LOOK[contender]["color"], "alpha": 0.2}
        ax.fill_between(ratio.min().index, ratio.min(), ratio.max(), **band)
    ax.axhline(1, label="no gain", **THEORY)
    _log_axes(ax, tuple(int(n) for n in lengths))
    ax.set(xlabel="tokens generated", ylabel="times faster than without a cache")
    ax.set_title("What a cache gains")
    ax.legend(frameon=False)
    return figure


def caught(seen: pd.DataFrame) -> Figure:
    """Wrong caches (rows) by checks (columns): dark, with "sees", where the check sees the bug."""
    figure, ax = plt.subplots(figsize=(SIZE[0], 0.3 * len(seen) + 2.2), layout="constrained")
    ax.imshow(seen.astype(float), cmap="Greys", vmin=-0.1, vmax=1.6, aspect="auto")
    for (row, column), value in np.ndenumerate(seen.to_numpy()):
        text, color = ("sees", "white") if value else ("·", "black")
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
    ax.set_xticks(np.arange(seen.shape[1] - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(seen) - 1) + 0.5, minor=True)
    ax.tick_params(which="minor", length=0)
    totals_of = [f"{name}\n{count} of {len(seen)}" for name, count in seen.sum().items()]
    ax.set_xticks(range(seen.shape[1]), totals_of, rotation=60, ha="left", fontsize=8)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(seen)), seen.index, fontsize=8)
    ax.grid(which="minor", color="white", linewidth=2)
    return figure


def looks(panels: dict[str, list[Tensor]], tokens: list[str], prefill: int) -> Figure:
    """What each token looked at, by title: rows are tokens, columns the keys there were.

    Darker is more (the square root of the weight); white: no such key. A line marks the end of the
    prefill, which has `prefill` tokens.
    """
    widths = [max(map(len, rows)) for rows in panels.values()]
    figure, axes = plt.subplots(
        1, len(panels), figsize=SIZE, layout="constrained", width_ratios=widths
    )
    for ax, (title, rows), width in zip(axes, panels.items(), widths, strict=True):
        for row, weights in enumerate(rows):
            ax.imshow(
                weights.sqrt()[None],
                cmap="Greys",
                vmin=-0.1,
                vmax=1,
                extent=(0, len(weights), row + 0.95, row + 0.05),
            )
        ax.axhline(prefill, color="#D55E00", linewidth=1.5)
        note = {"color": "#D55E00", "ha": "right", "fontsize": 8}
        ax.text(width - 0.1, prefill - 0.1, "prefill", va="bottom", **note)
        ax.text(width - 0.1, prefill + 0.1, "then", va="top", **note)
        ax.set_xticks(np.arange(0, width, 2) + 0.5, range(0, width, 2), fontsize=8)
        ax.set_yticks(np.arange(len(rows)) + 0.5, tokens, fontsize=8)
        ax.set(title=title, xlabel="key", xlim=(0, width), ylim=(len(rows), 0))
        ax.set_aspect("auto")
        ax.grid(False)
    return figure
