"""The figures of real weights (chapter 12), drawn from made-up data."""

import numpy as np
import pandas as pd
import torch

from course_utils.going_further.gpt2 import figures


def merges():
    merged = np.arange(590)
    story, english = 1 + 3.3 * (merged / 590) ** 0.5, 1 + 1.05 * (merged / 590) ** 0.4
    return figures.merges(pd.DataFrame({"a new story": story, "English": english}), 4.36)


def gelu():
    x = torch.linspace(-5, 5, 201, dtype=torch.float64)
    gelus = (torch.nn.functional.gelu(x, approximate=how).numpy() for how in ("none", "tanh"))
    names = ("GELU with erf", "GELU with tanh", "ReLU")
    return figures.gelu(x.numpy(), dict(zip(names, (*gelus, x.relu().numpy()), strict=True)))


def mistakes():
    names = [f"last norm's weight left at {i}" for i in range(10)]
    size = {"fresh": 0.5, "trained": 8.0, "filled": 9.0}
    error = pd.DataFrame(size, index=names)
    error.iloc[0] = np.nan
    error.loc[names[4:6], "fresh"] = 0
    error.loc[names[8]] = (1e-5, 2e-3, 1e-3)
    tolerances = {"float64: 1e-9": 1e-9, "float32: 1e-4": 1e-4}
    return figures.mistakes(error, error < 1e-2, tolerances)


FIGURES = {
    "12 merges": merges,
    "12 gelu": gelu,
    "12 mistakes": mistakes,
}
