"""Does any small mistake in a right answer get its points from `python -m grading grade`?

    python benchmarks/graded_mutants.py [--notebooks 01 02] [--number N] [--seed 1] [--jobs 2]
        [--out graded_mutants]

Makes real submissions: the first holds the first mutant of every exercise of a notebook
(`tests/support/mutants.py` says how they are made), the second the second, and so on; and has them
graded in the sandbox, with a batch for each notebook. At the end come the exercises, how many of
their mutants got nothing, and the mutants that got points and should not have.
`data/equivalent_answers.csv` says of some why they may.

All of it is about 900 submissions, an hour and a half on two cores. What has been graded is kept
in `--out`: the same command, started again, goes on where it stopped. With `--number`, so many
mutants of each exercise, spread over its lines. `benchmarks/answer_mutants.py --grading` asks the
same probes, without a kernel and a sandbox around them.
"""

import argparse
import os
import sys
from pathlib import Path

# Before this file's folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

import mutated_answers
from mutants import sample
from submitted import got_points, hand_in_mutants

from grading.batch import grade
from grading.graft import exercises

NOTEBOOKS = ("01", "02", "03", "04", "05", "06")


def grade_all(notebook: str, options: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Hand in the mutants for a notebook and grade them; says and returns what is not right."""
    worked = mutated_answers.exercises()
    chosen = {name: sample(worked[name].mutants(), options.number) for name in exercises(notebook)}
    folder, out = options.out / notebook / "submissions", options.out / notebook / "grades"
    hand_in_mutants(folder, notebook, chosen)
    book = grade(folder, out, notebook, options.seed, jobs=options.jobs)
    wrong = got_points(book, notebook, chosen)
    for name, mutants in chosen.items():
        points = [what for exercise, what, _ in wrong if exercise == name]
        print(f"{notebook} {name}: {len(mutants)} mutants, {len(points)} graded wrongly")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notebooks", nargs="+", choices=NOTEBOOKS, default=NOTEBOOKS)
    parser.add_argument("--number", type=int, default=10**9, help="so many of each answer")
    parser.add_argument("--seed", type=int, default=1, help="draws the inputs of the probes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("graded_mutants"))
    options = parser.parse_args()
    wrong = [row for notebook in options.notebooks for row in grade_all(notebook, options)]
    for name, what, status in wrong:
        print(f"{status}: {name}, {what}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
