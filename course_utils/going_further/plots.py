"""The figures of "Going further": the look is that of `course_utils.plots`."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..plots import THEORY, _figure, _log_axes

PEERS = {
    "transformers": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "course, plain": {"color": "#0072B2", "linestyle": "-", "marker": "s"},
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
