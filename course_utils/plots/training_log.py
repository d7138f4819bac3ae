"""The figure of a training: loss and recall, step by step."""

import pandas as pd
from matplotlib.figure import Figure

from .look import AT_X, BLUE, GREEN, GREY, SMALL, panels


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
            note = {"fontsize": SMALL, "color": "0.3", "rotation": 90} | AT_X
            note["bbox"] = {"facecolor": "white", "linewidth": 0, "pad": 1}
            ax.annotate(name, (start, height), (2, 0), **note)
    left.set(xlabel="training step", ylabel="loss (nats per token)", title="Loss", ylim=(0, None))
    right.set(xlabel="training step", ylabel="share right", ylim=(0, 1.02))
    right.set_title("Repeated tokens, then words of answers")
    return figure
