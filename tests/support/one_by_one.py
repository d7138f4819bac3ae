"""Mutants judged one after the other, each with a time limit, and a row in a CSV for each."""

import time
from pathlib import Path

import pandas as pd
from apart import Apart
from mutants import Mutant

TIMES_AS_LONG, AND_SECONDS, FOR_THE_RIGHT_ONE = 10, 20, 900


def judge_all(
    name: str, function: str, given: tuple[int, str, int], left: list[Mutant], out: Path
) -> None:
    """Judge what is right, which must be accepted, and then its mutants.

    `function` ("module.name") takes what is `given`: a number, the right source and how many seeds.
    """
    number, source, seeds = given
    judge, start = Apart(function), time.monotonic()
    found = judge(number, source, seeds, limit=FOR_THE_RIGHT_ONE)
    limit = TIMES_AS_LONG * (time.monotonic() - start) + AND_SECONDS
    if found[0] != "accepted":
        print(f"{name} as it is, and so not its mutants: {', '.join(found)}")
        left = []
    for mutant in left:
        start = time.monotonic()
        try:
            word, problem = judge(number, mutant.source, seeds, limit=limit)
        except TimeoutError as error:
            word, problem = "no end", str(error)
        except ProcessLookupError as error:
            word, problem = "refused", str(error)
        row = [name, mutant.line, mutant.what, word, " ".join(problem.split())[:160]]
        row.append(round(time.monotonic() - start, 2))
        pd.DataFrame([row]).to_csv(out, mode="a", header=False, index=False)
        print(f"{name}, {mutant.what}: {word}", flush=True)
    judge.close()
