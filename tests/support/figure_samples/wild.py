"""The figures of caches in the wild (chapter 13), drawn from made-up data."""

import pandas as pd

from course_utils.going_further.wild import figures


def missing():
    return figures.missing(
        {"in one chunk": (6, 8, (12,)), "7, then one by one": (6, 8, (7, *5 * [1]))}
    )


def errors():
    wrong = [1e-9] * 8 + [1.08, 0.9, 1.3, 1.7, 2.0, 1.1, 0.8, 2.2]
    return figures.errors({"moshi": wrong, "mamba": [1e-9, *[0.02 * i for i in range(1, 16)]]}, 8)


def survey():
    kinds = "keys and values of all tokens", "a window", "a state", "a state, and keys", "others"
    counts = {"right": [140, 45, 9, 12, 8], "wrong": [5, 2, 6, 7, 3], "not judged": [4, 0, 1, 0, 2]}
    return figures.survey(pd.DataFrame(counts, index=kinds))


FIGURES = {"13 missing": missing, "13 errors": errors, "13 survey": survey}
