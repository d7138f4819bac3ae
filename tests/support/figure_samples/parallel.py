"""The figures of many processes (chapter 11), drawn from made-up data."""

import pandas as pd
import torch

from course_utils.going_further.parallel import figures


def who_holds_what():
    rows = torch.arange(4).repeat_interleave(32)[:, None].expand(128, 128)
    tall = torch.arange(4).repeat_interleave(128)[:, None].expand(512, 128)
    owners = {"W_q": rows, "W_k": rows, "W_v": rows, "W_o": rows.T, "fc1": tall, "fc2": tall.T}
    return figures.who_holds_what(owners)


def sent_and_kept():
    ring = pd.Series({n: 2 * (n - 1) / n for n in range(1, 9)})
    kept = pd.DataFrame({"weights": [1, 0.6, 0.4], "cache": [1, 0.5, 0.25]}, index=[1, 2, 4])
    return figures.sent_and_kept(pd.Series({2: 1.01, 4: 1.5}), ring, kept)


def shares(spread: bool = True):
    tasks = [["prefill", "decode"], ["small", "wide"]]
    index = pd.MultiIndex.from_product(tasks, names=["task", "model"])
    columns = {"computing": [0.9, 0.5, 1.9, 0.8], "all-reduces": [4.9, 0.4, 11.3, 2]}
    times = pd.DataFrame(columns, index=index)
    whole = times.sum(axis=1)
    rounds = pd.DataFrame({"low": 0.9 * whole, "high": 1.2 * whole})
    return figures.shares(times, rounds if spread else None)


FIGURES = {
    "11 who_holds_what": who_holds_what,
    "11 sent_and_kept": sent_and_kept,
    "11 shares": shares,
    "11 shares, medians": lambda: shares(spread=False),
}
