"""Every figure of the course: one size, one look (`look.py`), readable in grey.

Each function takes measured data and returns a matplotlib figure; nothing here measures anything.
"""

import base64
import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator
from PIL import Image
from torch import Tensor, nn

from .benchmark import GROWING, LENGTHS, NO_CACHE, PREALLOCATED, operations, totals
from .look import (
    BAND,
    BLACK,
    BLUE,
    COSTLY,
    DPI,
    GREEN,
    GREY,
    LOW,
    OFFSET,
    ORANGE,
    PAGE,
    PALE,
    SMALL,
    SQUARES,
    TALL,
    THEORY,
    WIDTH,
    ink,
    log_axes,
    name_lines,
    panels,
    spread,
)

LOOK = {
    NO_CACHE: {"color": ORANGE, "linestyle": "-", "marker": "o"},
    GROWING: {"color": BLUE, "linestyle": "-", "marker": "s"},
    PREALLOCATED: {"color": GREEN, "linestyle": "-", "marker": "^"},
}


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours, at the course's resolution."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook, once, with `alt` for those who cannot see it."""
    picture = base64.b64encode(png(figure)).decode()
    size = {"width": int(100 * WIDTH)}
    display(
        {"image/png": picture, "text/plain": repr(figure)},
        metadata={"image/png": {"alt": alt} | size},
        raw=True,
    )
    plt.close(figure)


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
    overhead, rate = fitted
    figure, (left, right) = panels(2, height=TALL, width_ratios=(1.4, 1))
    most = max(LENGTHS)
    tokens = np.arange(1, most + 1)
    for contender in (NO_CACHE, PREALLOCATED):
        cached = contender != NO_CACHE
        work = [operations(model, 1 if cached else n, n) for n in tokens + prompt_len - 1]
        theory = overhead + np.array(work) / rate
        (law,) = left.plot(tokens, theory.cumsum(), **THEORY)
        right.plot(tokens, 1e3 * theory, **THEORY)
    law.set_label("cost model")
    whole, points = totals(times, tokens), np.searchsorted(tokens, LENGTHS)
    for contender in times["contender"].unique():
        look = LOOK[contender] | {"linewidth": 2.6, "markersize": 8}
        column = whole[contender]
        left.plot(tokens, column["median"], label=contender, markevery=points, **look)
        band = BAND | {"color": look["color"]}
        left.fill_between(tokens, column["min"], column["max"], **band)
        part = steps[steps["contender"] == contender]
        plain = look | {"marker": ""}
        right.plot(part["tokens"], 1e3 * part["median"], label=contender, **plain)
        right.fill_between(part["tokens"], 1e3 * part["low"], 1e3 * part["high"], **band)
    ratio = _ratio(times, PREALLOCATED).loc[most]
    slow, fast = (whole[contender]["median"][most] for contender in (NO_CACHE, PREALLOCATED))
    beside = 1.06 * most  # the markers would hide the arrow's ends
    left.hlines((slow, fast), most, beside, color=BLACK, linewidth=0.8)
    arrow = {"arrowstyle": "<->", "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    left.annotate("", (beside, slow), (beside, fast), arrowprops=arrow)
    said = f"{ratio.median():.1f} times"
    if ratio.count() > 1:
        said += f"\n({ratio.min():.1f} to {ratio.max():.1f})"
    note = {"fontsize": 13, "fontweight": "bold", "annotation_clip": False} | OFFSET
    left.annotate(said, (beside, (slow + fast) / 2), (8, 0), va="center", **note)
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
    top = 1e3 * theory[-1]
    name_lines(right, (top, "cost model", BLACK), size=12)
    return figure


def _finding(tokens: int, ratio: pd.Series) -> str:
    """What was measured, in a title: only a ratio that all rounds agree on counts as a gain."""
    if ratio.min() > 1:
        return f"{tokens} tokens: {ratio.median():.1f} times faster with a KV cache"
    if ratio.max() < 1:
        return f"{tokens} tokens: {1 / ratio.median():.1f} times slower with a KV cache"
    return f"{tokens} tokens: no clear difference with a KV cache"


def _mark_rounds(ax: Axes, times: pd.DataFrame, height: float = 1) -> None:
    """A line where some of the rounds end, and how many there are on either side of it.

    The words are at this `height`, from 0 to 1.
    """
    ends = times.groupby("round")["tokens"].max()
    for end in sorted(set(ends))[:-1]:
        ax.axvline(end, color=GREY, linestyle=":", linewidth=1.2)
        for places, going_on, side in ((-4, ends >= end, "right"), (4, ends > end, "left")):
            count = int(going_on.sum())
            text = f"{count} round" + "s" * (count > 1)
            at = {
                "xy": (end, height),
                "xycoords": ("data", "axes fraction"),
                "xytext": (places, -4),
            }
            ax.annotate(text, **at, ha=side, va="top", fontsize=SMALL, **OFFSET)


def _ratio(times: pd.DataFrame, cache: str) -> pd.Series:
    """Time without a cache over time with one, within each round: by tokens and round."""
    table = times.pivot(index=["tokens", "round"], columns="contender", values="total")
    return table[NO_CACHE] / table[cache]


def prefill(prefills: pd.DataFrame, fitted: tuple[float, float], model: nn.Module) -> Figure:
    """Time to run the prompt once, against its length, with and without filling a cache.

    `prefills` from `benchmark.prefill_times`; bars are quartiles.
    """
    overhead, rate = fitted
    figure, (ax,) = panels()
    for contender, part in prefills.groupby("contender", sort=False):
        look = LOOK[contender]
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
        seconds, look = column["median"], LOOK[contender]
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


def training(log: pd.DataFrame) -> Figure:
    """Loss and recall against training steps; `log` is written by `course_utils.train`."""
    figure, (left, right) = panels(2)
    for _, stage in log.groupby("stage", sort=False):
        left.plot(stage["step"], stage["loss"], color=BLUE)
        right.plot(stage["step"], stage["recall"], color=GREEN)
    for ax, height in ((left, 0.6), (right, 0.02)):
        for name, stage in log.groupby("stage", sort=False):
            start = stage["step"].min()
            ax.axvline(start, color=GREY, linewidth=0.8)
            at = {"xycoords": ("data", "axes fraction"), "fontsize": SMALL} | OFFSET
            at["bbox"] = {"facecolor": "white", "linewidth": 0, "pad": 1}
            ax.annotate(name, (start, height), (2, 0), rotation=90, color="0.3", **at)
    left.set(xlabel="training step", ylabel="loss (nats per token)", title="Loss", ylim=(0, None))
    right.set(xlabel="training step", ylabel="share right", ylim=(0, 1.02))
    right.set_title("Repeated tokens, then words of answers")
    return figure


def softmax_overflow(scales: Tensor, weights: dict[str, Tensor]) -> Figure:
    """The larger of two weights against the distance of their scores; NaN breaks the line off.

    `weights` holds one tensor (one number per scale) for each way of computing the softmax.
    """
    figure, (ax,) = panels()
    looks = ({"color": ORANGE, "linewidth": 7}, {"color": GREEN, "linestyle": (0, (1, 1))})
    ends = []
    for (name, values), look in zip(weights.items(), looks, strict=True):
        ax.plot(scales.numpy(), values.numpy(), **look)
        broken = values.isnan().nonzero()
        if len(broken):
            start = scales[broken[0, 0]].item()
            ax.axvspan(start, scales[-1].item(), color="0.9", zorder=0)
            note = {"color": ink(look["color"]), "ha": "right"} | OFFSET
            ax.annotate(
                f"{name} (wide line): NaN from {start:.0f} on", (start, 0.7), (-6, 0), **note
            )
        else:
            ends.append((values[-1].item(), name, look["color"]))
    ax.set(xlabel="one score is 0, the other is this", ylabel="weight of the larger score")
    ax.set(
        title="The softmax that overflows, and the one that does not",
        xlim=(None, scales[-1].item()),
    )
    name_lines(ax, *ends)
    return figure


def attention_steps(tokens: list[str], scores: Tensor, masked: Tensor, weights: Tensor) -> Figure:
    """Scores, masked scores and weights (T, T) side by side, each number written in its cell."""
    figure, axes = panels(3, height=SQUARES)
    titles = ("scores", "masked scores", "weights: rows sum to 1")
    for ax, title, matrix in zip(axes, titles, (scores, masked, weights), strict=True):
        darkest = 1.3 * matrix[matrix.isfinite()].max().item()
        ax.imshow(matrix.numpy(), cmap="Greys", vmin=0, vmax=darkest)
        for (row, column), value in np.ndenumerate(matrix.numpy()):
            text = f"{value:.1f}" if np.isfinite(value) else "−∞"
            color = "white" if value > darkest / 2 else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=color)
        ax.set_xticks(range(len(tokens)), tokens, rotation=90)
        ax.set_yticks(range(len(tokens)), tokens)
        ax.set(title=title, xlabel="key", anchor="N")
        ax.grid(False)
    axes[0].set_ylabel("query")
    return figure


def all_heads(maps: Tensor) -> Figure:
    """Attention weights (num_layers, H, T, T): one small map per head, layers downwards."""
    num_layers, num_heads = maps.shape[:2]
    figure, axes = panels(num_heads, num_layers, height=PAGE)
    for (layer, head), ax in np.ndenumerate(axes):
        ax.imshow(maps[layer, head].sqrt().numpy(), cmap="Greys", vmin=0, vmax=1)
        ax.set(xticks=[], yticks=[], title=f"layer {layer + 1}, head {head + 1}")
        ax.grid(False)
    figure.supxlabel("key (first token to last)")
    figure.supylabel("query (last token to first)")
    return figure


def lookup(tokens: list[str], rows: dict[str, Tensor], marked: dict[str, int]) -> Figure:
    """Where the last token looks: one panel per head, a bar per token, one bar hatched and named.

    `rows` holds weights (T,) by title; `marked` the position to point at, by the same title.
    """
    figure, axes = panels(1, len(rows), height=TALL, sharex=True)
    for ax, (title, weights) in zip(np.ravel(axes), rows.items(), strict=True):
        bars = ax.bar(range(len(tokens)), weights.numpy(), color=GREY)
        at = marked[title]
        bars[at].set(facecolor=PALE[GREEN], hatch="//", edgecolor=GREEN)
        height = weights[at].item()
        said = f"{tokens[at]} {height:.2f}"
        ax.annotate(said, (at, height), (0, 3), ha="center", **OFFSET)
        ax.set(title=title, ylabel="weight", ylim=(0, 1.15), yticks=np.linspace(0, 1, 6))
        ax.spines["left"].set_bounds(0, 1)
        ax.grid(axis="x", visible=False)
    words = ["full stop" if token == "." else token for token in tokens]
    ax.set_xticks(range(len(tokens)), words, rotation=90, fontsize=SMALL)
    return figure


def parameter_shares(counts: dict[str, int]) -> Figure:
    """One bar per part of the model: how many parameters it has."""
    figure, (ax,) = panels()
    names, numbers = list(counts), list(counts.values())
    bars = ax.barh(names, numbers, color=GREEN)
    shares = [n / sum(numbers) for n in numbers]
    said = [f"{share:.0%}" if share >= 0.005 else "<1%" for share in shares]
    ax.bar_label(bars, [f"{n:,} ({s})" for n, s in zip(numbers, said, strict=True)], padding=4)
    ax.set(xlabel="parameters", xlim=(0, 1.3 * max(numbers)))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_title(f"Where the {sum(numbers):,} parameters are")
    ax.invert_yaxis()
    return figure


def stream(probabilities: dict[str, list[float]], sizes: dict[str, list[float]]) -> Figure:
    """The residual stream after each layer: what it would answer (left), what was added (right).

    `probabilities` holds, for each word, its probability after 0, 1, ... layers; `sizes` the length
    of what attention and feed-forward added in each layer.
    """
    figure, (left, right) = panels(2)
    styles = zip("o^s", ("-", "--", ":"), (GREEN, ORANGE, BLUE), strict=True)
    for (word, values), (marker, line, color) in zip(probabilities.items(), styles, strict=True):
        left.plot(values, marker=marker, linestyle=line, color=color, label=word)
    steps = len(next(iter(probabilities.values()))) - 1
    left.set(xlabel="layers run", ylabel="probability of the word", ylim=(-0.05, 1.03))
    left.set(title="What the stream would say", xlim=(-0.1, steps + 0.1))
    left.set_xticks(range(steps + 1))
    layers = np.arange(1, len(next(iter(sizes.values()))) + 1)
    looks = (
        (-0.2, {"facecolor": GREEN, "edgecolor": GREEN}),
        (0.2, {"facecolor": PALE[ORANGE], "edgecolor": ORANGE, "hatch": "//"}),
    )
    for (part, lengths), (shift, look) in zip(sizes.items(), looks, strict=True):
        right.bar(layers + shift, lengths, 0.4, label=part, **look)
    right.set(xlabel="layer", ylabel="length of the vector added", title="What each part adds")
    right.set_xticks(layers)
    right.grid(axis="x", visible=False)
    right.set_ylim(0, 1.25 * max(map(max, sizes.values())))
    right.legend(loc="upper left", ncols=2)
    name_lines(left)
    return figure


def temperatures(words: list[str], probabilities: dict[float, Tensor]) -> Figure:
    """The likeliest words at several temperatures: one panel each, a bar per word."""
    figure, axes = panels(len(probabilities))
    highest = max(p.max().item() for p in probabilities.values())
    for ax, (temperature, shares) in zip(axes, probabilities.items(), strict=True):
        ax.barh(words, shares.numpy(), color=GREEN)
        ax.set(title=f"temperature {temperature:g}", xlim=(0, 1.1 * highest))
        ax.set_xlabel("probability")
        ax.invert_yaxis()
    return figure


def cuts(places: dict[str, tuple[list[str], Tensor, int, int]]) -> Figure:
    """What top-k and top-p keep: a panel per place, the cuts drawn between the ordered words.

    `places` holds, by title: words in order, their probabilities, how many each of the two keeps.
    """
    figure, axes = panels(len(places))
    for ax, (title, (words, shares, by_k, by_p)) in zip(axes, places.items(), strict=True):
        ax.barh(words, shares.numpy(), color=GREY, height=0.6)
        edge = 1.15 * shares.max().item()
        for kept, name, color, line, drop in (
            (by_k, "top-k", BLUE, "--", -13),
            (by_p, "top-p", ORANGE, "-", 4),
        ):
            ax.axhline(kept - 0.5, color=color, linestyle=line, linewidth=2)
            drop = -13 if kept < 3 else drop
            note = {"ha": "right", "color": ink(color)} | OFFSET
            ax.annotate(f"{name} keeps {kept}", (edge, kept - 0.5), (0, drop), **note)
        ax.set(title=title, xlabel="probability", xlim=(0, edge))
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    return figure


def repeated_work(tokens: np.ndarray, needed: np.ndarray, repeated: np.ndarray) -> Figure:
    """Operations per step without a cache: for the newest token, and repeated (hatched)."""
    figure, (ax,) = panels()
    million = 1e6
    again = {"label": "done before, and done again", "width": 0.8} | COSTLY
    ax.bar(tokens, repeated / million, bottom=needed / million, **again)
    ax.bar(tokens, needed / million, color=GREEN, width=0.8, label="for the newest token")
    ax.set(xlabel="tokens in the text", ylabel="operations (millions)")
    ax.set(title="One step without a cache", xlim=(tokens[0] - 0.6, tokens[-1] + 0.6))
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left")
    return figure


def step_times(times: pd.DataFrame) -> Figure:
    """Time of one forward pass over the whole text, and the count, scaled to its last point.

    Columns tokens, operations, and median, low, high (seconds).
    """
    figure, (ax,) = panels()
    look = LOOK[NO_CACHE]
    ax.plot(times["tokens"], 1e3 * times["median"], **look)
    spread(ax, times["tokens"], 1e3 * times["low"], 1e3 * times["high"], look["color"])
    last = times.iloc[-1]
    by_count = last["median"] / last["operations"] * times["operations"]
    ax.plot(times["tokens"], 1e3 * by_count, **THEORY)
    ax.set(xlabel="tokens in the text", ylabel="time for one more word (ms)", ylim=(0, None))
    ax.set_title("Writing gets slower as the text gets longer")
    return figure


def what_changes(differences: dict[str, Tensor], tokens: list[str]) -> Figure:
    """How far the stored keys move when one token is added: (num_layers, T) per panel, by title.

    The last column of each panel is the added token, which had no key before (hatched).
    """
    figure, axes = panels(1, len(differences), height=TALL, sharex=True)
    for ax, (title, moved) in zip(np.ravel(axes), differences.items(), strict=True):
        num_layers, num_tokens = moved.shape
        ax.imshow((moved > 1e-9).numpy(), cmap="Greys", vmin=0, vmax=3, aspect="auto")
        new = {"fill": False, "hatch": "////", "edgecolor": GREEN}
        ax.add_patch(plt.Rectangle((num_tokens - 0.5, -0.5), 1, num_layers, **new))
        for (layer, token), value in np.ndenumerate(moved.numpy()):
            ax.text(token, layer, f"{value:.2f}", ha="center", va="center", fontsize=SMALL)
        ax.set_yticks(range(num_layers), [f"layer {i + 1}" for i in range(num_layers)])
        ax.set(title=title, xlim=(-0.5, num_tokens + 0.5))
        ax.grid(False)
    ax.set_xticks(range(num_tokens + 1), tokens)
    return figure


def masks(grids: dict[str, tuple[Tensor, list[str], list[str]]]) -> Figure:
    """Boolean masks (Q, K) side by side, with the words of their rows and columns, by title."""
    widths = [mask.size(1) for mask, _, _ in grids.values()]
    figure, axes = panels(len(grids), height=SQUARES, width_ratios=widths)
    for ax, (title, (mask, queries, keys)) in zip(axes, grids.items(), strict=True):
        ax.imshow(mask.numpy(), cmap="Greys", vmin=-0.4, vmax=1.4)
        for (row, column), seen in np.ndenumerate(mask.numpy()):
            note = {"ha": "center", "va": "center", "fontsize": SMALL}
            color = "white" if seen else "black"
            ax.text(column, row, "sees" if seen else "−∞", color=color, **note)
        ax.set_xticks(range(len(keys)), keys, rotation=90)
        ax.set_yticks(range(len(queries)), queries)
        ax.set(title=title, xlabel="key", anchor="N")
        ax.grid(False)
    axes[0].set_ylabel("query")
    return figure


def filling(portions: list[int], tokens: list[str]) -> Figure:
    """The cache after each call: what was read (grey), what was written (hatched)."""
    figure, (ax,) = panels()
    stored = 0
    written = {"facecolor": PALE[GREEN], "hatch": "//", "edgecolor": GREEN}
    for call, portion in enumerate(portions):
        ax.barh(call, stored, color="0.75", height=0.8)
        ax.barh(call, portion, left=stored, height=0.8, **written)
        stored += portion
    names = [f"prefill: {portions[0]} in", *(f"decode: {n} in" for n in portions[1:])]
    ax.set_yticks(range(len(portions)), names)
    ax.set_xticks(np.arange(len(tokens)) + 0.5, tokens, rotation=90)
    ax.set(xlim=(0, len(tokens)), title="Keys and values in the cache, call by call")
    handles = [Patch(color="0.75", label="read"), Patch(label="written", **written)]
    ax.legend(handles=handles, loc="upper right")
    ax.invert_yaxis()
    ax.grid(False)
    return figure


def cache_bytes(
    predicted: dict[str, list[int]], allocated: dict[str, list[int]], tokens: list[int]
) -> Figure:
    """Bytes of each cache against the tokens it holds: formula (dashed), allocated (points)."""
    figure, (ax,) = panels()
    for name, numbers in allocated.items():
        ax.plot(tokens, np.array(predicted[name]) / 1e6, **THEORY)
        ax.plot(tokens, np.array(numbers) / 1e6, label=name, **(LOOK[name] | {"linestyle": ""}))
    ax.set(xlabel="tokens in the cache", ylabel="memory (MB)", ylim=(0, None))
    ax.set_title("Bytes, predicted (dashed) and allocated (points)")
    name_lines(ax)
    return figure


def recall_bars(right: dict[str, int], questions: int) -> Figure:
    """How many questions each model answers right: a bar with its number, per name."""
    figure, (ax,) = panels(height=LOW)
    names, numbers = list(right), list(right.values())
    bars = ax.barh(names, numbers, **COSTLY)
    bars[0].set(facecolor=GREEN, edgecolor=GREEN, hatch="")
    ax.bar_label(bars, [f"{n} of {questions}" for n in numbers], padding=4)
    ax.set(xlabel="questions answered right", xlim=(0, 1.15 * questions))
    ax.set_title("Where is it? Answers decoded from the cache")
    ax.invert_yaxis()
    return figure


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
    pairs = {"in blocks": blocks, "in turns": turns}
    found = [np.array(second) / np.array(first) for first, second in pairs.values()]
    quartiles = np.array([np.quantile(each, (0.25, 0.5, 0.75)) for each in found])
    for at, (color, (low, value, high)) in enumerate(zip((ORANGE, GREEN), quartiles, strict=True)):
        middle.plot(at, value, "o", color=color)
        spread(middle, at, low, high, color)
        middle.annotate(f"{value:.2f}", (at, high), (0, 4), ha="center", **OFFSET)
    middle.axhline(1, **THEORY)
    middle.set(ylabel="time of A again / time of A", yscale="log", xlim=(-0.6, 1.6))
    middle.set_xticks(range(2), list(pairs))
    middle.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 5, 7)))
    middle.yaxis.set_major_formatter("{x:g}")
    middle.minorticks_off()
    middle.set_ylim(min(0.8, 0.9 * quartiles.min()), max(1.6, 1.2 * quartiles.max()))
    middle.set_title("A against itself")
    right.hist(ratios, bins=12, color=GREY, edgecolor="white")
    right.axvline(np.median(ratios), **THEORY)
    right.set(xlabel="no cache / cache, 10 tokens", ylabel="measurements", title="One by one")
    for ax in (left, middle, right):
        ax.grid(axis="x", visible=False)
    return figure


def gain(times: pd.DataFrame, lengths: np.ndarray) -> Figure:
    """How many times faster each cache is, against tokens generated; bands: lowest to highest."""
    figure, (ax,) = panels()
    for contender in (GROWING, PREALLOCATED):
        ratio = _ratio(times[times["tokens"].isin(lengths)], contender).groupby("tokens")
        ax.plot(ratio.median().index, ratio.median(), label=contender, **LOOK[contender])
        band = BAND | {"color": LOOK[contender]["color"]}
        ax.fill_between(ratio.min().index, ratio.min(), ratio.max(), **band)
    ax.axhline(1, **THEORY)
    log_axes(ax, tuple(int(n) for n in lengths))
    ax.set(xlabel="tokens generated", ylabel="times faster than without a cache")
    ax.set(title="What a cache gains", xlim=(None, lengths[-1]))
    _mark_rounds(ax, times)
    name_lines(ax, (1, "no gain", BLACK))
    return figure


def caught(seen: pd.DataFrame) -> Figure:
    """Wrong caches (rows) by checks (columns): dark, with "sees", where the check sees the bug."""
    figure, (ax,) = panels(height=PAGE)
    ax.imshow(seen.astype(float), cmap="Greys", vmin=-0.1, vmax=1.6, aspect="auto")
    for (row, column), value in np.ndenumerate(seen.to_numpy()):
        text, color = ("sees", "white") if value else ("·", "black")
        ax.text(column, row, text, ha="center", va="center", fontsize=SMALL, color=color)
    ax.set_xticks(np.arange(seen.shape[1] - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(len(seen) - 1) + 0.5, minor=True)
    ax.tick_params(which="both", length=0)
    totals_of = [f"{name}\n{count} of {len(seen)}" for name, count in seen.sum().items()]
    ax.set_xticks(range(seen.shape[1]), totals_of, rotation=90, va="bottom", fontsize=SMALL)
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(seen)), seen.index, fontsize=SMALL)
    ax.grid(False)
    ax.grid(which="minor", color="white", linewidth=2, alpha=1)
    return figure


def looks(grids: dict[str, list[Tensor]], tokens: list[str], prefill: int) -> Figure:
    """What each token looked at, by title: rows are tokens, columns the keys there were.

    Darker is more (the square root of the weight); white: no such key. A line marks the end of the
    prefill, which has `prefill` tokens. The keys of the first panel are named: they are the tokens.
    """
    widths = [max(map(len, rows)) for rows in grids.values()]
    figure, axes = panels(len(grids), width_ratios=widths)
    for ax, (title, rows), width in zip(axes, grids.items(), widths, strict=True):
        for row, weights in enumerate(rows):
            extent = (0, len(weights), row + 0.95, row + 0.05)
            ax.imshow(weights.sqrt()[None].numpy(), cmap="Greys", vmin=-0.1, vmax=1, extent=extent)
        ax.axhline(prefill, color=ORANGE)
        ax.set_xticks(np.arange(0, width, 2) + 0.5, range(0, width, 2))
        ax.set_yticks(np.arange(len(rows)) + 0.5, tokens)
        ax.set(title=title, xlabel="key", xlim=(0, width), ylim=(len(rows), 0))
        ax.set_aspect("auto")
        ax.grid(False)
    names = [f"{token} {number}" for number, token in enumerate(tokens)]
    axes[0].set_xticks(np.arange(len(tokens)) + 0.5, names, rotation=90)
    beside = {"xycoords": ("axes fraction", "data"), "color": ink(ORANGE)} | OFFSET
    ax.annotate("↑ prefill", (1, prefill), (6, 3), **beside)
    ax.annotate("↓ after it", (1, prefill), (6, -3), va="top", **beside)
    return figure
