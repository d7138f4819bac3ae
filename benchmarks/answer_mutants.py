"""Which small mistakes in a right answer does the check of an exercise refuse?

    python benchmarks/answer_mutants.py [--exercises softmax generate] [--notebooks 01 02]
        [--number N] [--grading] [--out answer_mutants.csv] [--fresh]

Changes the worked answer to each exercise in one place at a time (`tests/support/mutants.py` says
how), and calls the check of the exercise with it. With `--grading` the probes of `python -m
grading` are asked instead (01 to 06; each mutant with a seed of its own). What takes ten times as
long as the right answer is stopped. All of it takes about an hour on one core.

After each mutant one row goes to the CSV. Started again, it goes on where it stopped; after a
change of a check, use --fresh. At the end come the scores, and what was accepted.
`data/equivalent_answers.csv` says of mutants that are accepted why that is right: most change
nothing that can be seen.
"""

import argparse
import sys
import time
from pathlib import Path

import pandas as pd

# Before this file's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from apart import Apart
from mutants import sample
from mutated_answers import exercises, reasons

COLUMNS = "notebook exercise line what verdict message seconds".split()
TIMES_AS_LONG, AND_SECONDS, FOR_THE_RIGHT_ONE = 10, 10, 300


def judge_all(name: str, number: int, grading: bool, out: Path) -> None:
    """Judge an answer as it is, which must be accepted, and then its mutants."""
    exercise, table = exercises()[name], pd.read_csv(out)
    done = set(table["what"][table["exercise"] == name])
    left = [m for m in sample(exercise.mutants(), number) if m.what not in done]
    if not left:
        return
    judge = Apart(f"mutated_answers.{'probed' if grading else 'verdict'}")
    judge(name, exercise.answer, limit=FOR_THE_RIGHT_ONE)
    start = time.monotonic()
    found = judge(name, exercise.answer, limit=FOR_THE_RIGHT_ONE)
    seconds = time.monotonic() - start
    if found[0] != "accepted":
        return print(f"{name} as it is, and so not its mutants: {': '.join(found)}")
    print(f"{name}: the right answer took {seconds:.2f} s, {len(left)} mutants", flush=True)
    for place, mutant in enumerate(left):
        start = time.monotonic()
        try:
            seed = (place,) if grading else ()
            limit = TIMES_AS_LONG * seconds + AND_SECONDS
            word, said = judge(name, mutant.source, *seed, limit=limit)
        except (TimeoutError, ProcessLookupError) as error:
            word, said = "no end", str(error)
        row = [exercise.notebook, name, mutant.line, mutant.what, word]
        row += [" ".join(said.split())[:300], round(time.monotonic() - start, 2)]
        pd.DataFrame([row]).to_csv(out, mode="a", header=False, index=False)
    judge.close()


def main() -> None:
    every = exercises()
    notebooks = sorted({exercise.notebook for exercise in every.values()})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exercises", nargs="+", choices=every, default=list(every))
    parser.add_argument("--notebooks", nargs="+", choices=notebooks, default=notebooks)
    parser.add_argument("--number", type=int, default=10**9, help="so many of each answer")
    parser.add_argument("--grading", action="store_true", help="ask the probes, not the checks")
    parser.add_argument("--out", type=Path, default=Path("answer_mutants.csv"))
    parser.add_argument("--fresh", action="store_true", help="forget what is in the CSV")
    options = parser.parse_args()
    if options.fresh or not options.out.exists():
        pd.DataFrame(columns=COLUMNS).to_csv(options.out, index=False)
    chosen = [
        name
        for name in options.exercises
        if every[name].notebook in options.notebooks
        and (not options.grading or every[name].notebook <= "06")
    ]
    for name in chosen:
        judge_all(name, options.number, options.grading, options.out)
    table = pd.read_csv(options.out, dtype={"notebook": str}).fillna("")
    table = table[table["exercise"].isin(chosen)]
    known = reasons()
    for row in table[table["verdict"] == "accepted"].itertuples():
        if (row.exercise, row.what) in known:
            table.loc[row.Index, "verdict"] = "equivalent"
    counts = table.groupby(["notebook", "exercise", "verdict"], sort=False).size()
    print(counts.unstack(fill_value=0).to_string())
    for row in table[table["verdict"] == "accepted"].itertuples():
        print(f"accepted: {row.exercise}, {row.what}")


if __name__ == "__main__":
    main()
