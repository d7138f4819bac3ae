"""The figures of the transformer: its parameters, and what its layers say (notebook 02)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .look import BLUE, COSTLY, GREEN, ORANGE, SOLID, curve, name_lines, panels


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
    _would_say(left, probabilities)
    _added(right, sizes)
    name_lines(left)
    return figure


def _would_say(ax: Axes, probabilities: dict[str, list[float]]) -> None:
    looks = (curve(GREEN, "-", "o"), curve(ORANGE, "--", "^"), curve(BLUE, ":", "s"))
    for (word, values), look in zip(probabilities.items(), looks, strict=True):
        ax.plot(values, label=word, **look)
    steps = len(next(iter(probabilities.values()))) - 1
    ax.set(xlabel="layers run", ylabel="probability of the word", ylim=(-0.05, 1.03))
    ax.set(title="What the stream would say", xlim=(-0.1, steps + 0.1))
    ax.set_xticks(range(steps + 1))


def _added(ax: Axes, sizes: dict[str, list[float]]) -> None:
    layers = np.arange(1, len(next(iter(sizes.values()))) + 1)
    for (part, lengths), shift, look in zip(
        sizes.items(), (-0.2, 0.2), (SOLID, COSTLY), strict=True
    ):
        ax.bar(layers + shift, lengths, 0.4, label=part, **look)
    ax.set(xlabel="layer", ylabel="length of the vector added", title="What each part adds")
    ax.set_xticks(layers)
    ax.grid(axis="x", visible=False)
    ax.set_ylim(0, 1.25 * max(map(max, sizes.values())))
    ax.legend(loc="upper left", ncols=2)
