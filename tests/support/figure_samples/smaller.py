"""The figures of smaller caches (chapter 09), drawn from made-up data."""

import pandas as pd
import torch

from course_utils.going_further.smaller import figures


def by_distance(*recall: float) -> pd.DataFrame:
    return pd.DataFrame({"recall": recall}, index=[16, 32, 64, 128, 256, 512, 1024])


def windows():
    caches = {
        "whole cache": by_distance(1, 1, 1, 1, 1, 1, 0.98),
        "window 32": by_distance(0.98, 0.99, 0.01, 0.03, 0, 0.08, 0.08),
        "window 128": by_distance(0.7, 0.66, 0.65, 0.83, 0.07, 0.07, 0.07),
        "window 512": by_distance(0.95, 1, 0.98, 1, 1, 1, 0.04),
    }
    titles = ("A window in every layer", "Layer 1 keeps everything")
    return figures.recall_by_distance(dict.fromkeys(titles, caches), marks=(32, 128, 512))


def evictions():
    caches = {
        "whole cache": by_distance(1, 1, 1, 1, 1, 1, 0.98),
        "window": by_distance(0.7, 0.66, 0.65, 0.83, 0.07, 0.07, 0.07),
        "eviction": by_distance(1, 1, 1, 0.34, 0.4, 0.46, 0.28),
    }
    return figures.recall_by_distance({"128 positions": caches, "512 positions": caches})


def rounding():
    table = {
        "keys per channel, values per channel": [2.658, 2.659, 2.688],
        "keys per channel, values per token": [2.658, 2.659, 2.697],
        "keys per token, values per channel": [2.658, 2.66, 2.945],
        "keys per token, values per token": [2.658, 2.661, 2.96],
    }
    return figures.rounding(pd.DataFrame(table, index=[8, 4, 2]), 2.658)


def quality_against_bytes():
    window = (0.36, 0.59, 0.6, 0.51, 0.61, 0.84)
    rows = [("whole cache", "", 4096, 1, 2.66)]
    rows += [("fewer heads, pooled", f"{n} head", 1024 * n, 0.1 * n - 0.1, 5) for n in (1, 2)]
    rows += [("fewer heads, uptrained", f"{n} heads", 1024 * n, 0.95, 2.8) for n in (1, 2)]
    rows += [("window", str(4 * n), 4 * 4 * n, r, 5 - 2.3 * r) for n, r in
             zip((4, 8, 16, 32, 64, 128), window, strict=True)]  # fmt: skip
    rows += [
        ("window, layer 1 whole", str(4 * n), 1024 + 12 * n, r, 4.5 - 2 * r)
        for n, r in zip((4, 8, 16, 32, 64, 128), (0.36, 0.58, 0.69, 0.73, 0.77, 0.86), strict=True)
    ]
    rows += [("eviction", str(n), 4 * n, n**0.2 / 4 + 0.1, 3.2 - n / 1000) for n in (64, 128, 512)]
    rows += [("fewer bits", f"{b} bits", 128 * b + 130, 0.97 + b / 400, 2.7) for b in (2, 4, 8)]
    rows += [("2 heads, 4 bits", "", 330, 0.96, 2.8)]
    table = pd.DataFrame(rows, columns=["family", "label", "bytes", "recall", "perplexity"])
    return figures.quality_against_bytes(table.assign(bytes=1e3 * table["bytes"]))


FIGURES = {
    "09 grid": lambda: figures.grid(torch.rand(4, 4), "Attention on the first token"),
    "09 recall_by_distance, windows": windows,
    "09 recall_by_distance, evictions": evictions,
    "09 stripes": lambda: figures.stripes(torch.randn(200, 32), torch.randn(200, 32)),
    "09 rounding": rounding,
    "09 quality_against_bytes": quality_against_bytes,
}
