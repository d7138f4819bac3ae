"""What instructors run: hand the exercises out, grade what comes back, or try one file."""

import argparse
import importlib.util
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import pandas as pd

from . import sandbox, trial
from .batch import Unfinished, grade
from .gradebook import FORMATS, exported, write_whole
from .judge import NotFitToGrade

NOTEBOOKS = ("01", "02", "03", "04", "05", "06")
NEEDED = {"nbgrader": "instructor", "distributed": "cluster"}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with a message if something cannot be done."""
    given = _parser().parse_args(arguments)
    run = {"release": _release, "grade": _grade, "try": _try}[given.command]
    try:
        return run(given)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _refuse(f"{where}{error.strerror or error}.")
    except (ValueError, NotFitToGrade) as error:
        return _refuse(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m grading", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("release", help="make what students get: a folder and a zip")
    add.add_argument("--notebook", choices=NOTEBOOKS, help="only this one (default: each)")
    add.add_argument(
        "--out", type=Path, default=Path("handouts"), help="where to put it (default: handouts)"
    )
    add = commands.add_parser("grade", help="grade a folder of submissions for one notebook")
    add.add_argument("submissions", type=Path, help="one notebook or folder for each student")
    add.add_argument("--notebook", required=True, choices=NOTEBOOKS)
    add.add_argument(
        "--out",
        type=Path,
        default=Path("grades"),
        help="folder for the gradebook (default: grades)",
    )
    add.add_argument(
        "--seed", type=int, help="draws the inputs; the same seed gives the same grades"
    )
    add.add_argument(
        "--format", choices=FORMATS, nargs="+", default=[], help="scores to be imported elsewhere"
    )
    add.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="submissions at a time (default: one for each core)",
    )
    add.add_argument("--dask", metavar="ADDRESS", help="work on the cluster of this Dask scheduler")
    add.add_argument("--no-feedback", action="store_true", help="no page for each student: faster")
    add.add_argument("--no-isolation", action="store_true", help="run students' code unprotected")
    add = commands.add_parser("try", help="what one file gets, and why; writes nothing")
    add.add_argument("file", type=Path, help="a submission")
    add.add_argument(
        "--notebook", choices=NOTEBOOKS, help="the notebook's number, if the file does not show it"
    )
    add.add_argument("--seed", type=int, help="draws the inputs")
    add.add_argument("--page", type=Path, help="write what the student would get, as HTML")
    add.add_argument("--no-isolation", action="store_true", help="run the code unprotected")
    return parser


def _missing(*modules: str) -> str | None:
    """What to install, if one of these modules is not there."""
    for name in modules:
        if not importlib.util.find_spec(name):
            extra = f'pip install -c constraints.txt -e ".[test,{NEEDED[name]}]"'
            return f"This needs {name}, which is not installed: {extra}"
    return None


def _release(given: argparse.Namespace) -> int:
    if why := _missing("nbgrader"):
        return _refuse(why)
    from .release import release

    for notebook in [given.notebook] if given.notebook else NOTEBOOKS:
        print(release(notebook, given.out))
    return 0


def _unprotected() -> str | None:
    """What to do if students' code cannot be isolated here."""
    if not (reason := sandbox.why_not()):
        return None
    return (
        f"Students' code cannot be isolated here: {reason}. Grade on Linux with bubblewrap, or "
        "run students' code unprotected with --no-isolation (every row will say so)."
    )


def _seed(given: argparse.Namespace) -> int:
    return random.SystemRandom().randrange(2**31) if given.seed is None else given.seed


def _grade(given: argparse.Namespace) -> int:
    if given.submissions.is_file():
        single = f"python -m grading try {given.submissions}"
        return _refuse(f"{given.submissions} is a file: give its folder, or run `{single}`.")
    if not given.no_isolation and not given.dask and (why := _unprotected()):
        return _refuse(why)
    needed = [] if given.no_feedback else ["nbgrader"]
    if why := _missing(*needed, *(["distributed"] if given.dask else [])):
        return _refuse(why + ("" if given.no_feedback else " (or use --no-feedback)"))
    if given.jobs < 1:
        return _refuse(f"--jobs {given.jobs}: at least one submission has to be graded at a time.")
    seed = _seed(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up as after Ctrl-C
    try:
        book = grade(
            given.submissions,
            given.out,
            given.notebook,
            seed,
            given.jobs,
            isolated=not given.no_isolation,
            feedback=not given.no_feedback,
            dask=given.dask,
        )
    except (KeyboardInterrupt, Unfinished) as error:
        return _refuse(
            f"{str(error) or 'Interrupted.'} What was graded is kept in {given.out}: run the same "
            f"command with --seed {seed} to go on."
        )
    if book.empty:
        return _refuse(f"{given.submissions} holds no submissions: one notebook or folder each.")
    for form in given.format:
        table = exported(book, given.notebook, form)
        write_whole(given.out / f"scores-{form}.csv", table.to_csv(index=False))
    _summary(book)
    print(f"seed {seed}; written to {given.out / 'gradebook.csv'} and summary.html")
    return 0


def _try(given: argparse.Namespace) -> int:
    if not given.no_isolation and (why := _unprotected()):
        return _refuse(why)
    lacking = _missing("nbgrader")
    if given.page and lacking:
        return _refuse(f"A page needs the course's checks. {lacking}")
    if given.page and given.page.resolve() == given.file.resolve():
        return _refuse(f"--page {given.page}: that is the submission itself.")
    seed = _seed(given)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up as after Ctrl-C
    print("Running it, which takes about a minute, and longer on a busy machine.", file=sys.stderr)
    try:
        number, judged = trial.tried(
            given.file, given.notebook, seed, not given.no_isolation, feedback=not lacking
        )
    except KeyboardInterrupt:
        return _refuse("Interrupted.")
    if given.page:
        write_whole(given.page, judged.page)
    print(trial.table(number, judged, shutil.get_terminal_size().columns), end="\n\n")
    print(f"seed {seed}" + "; run without isolation" * given.no_isolation)
    if lacking:
        print(f"Without what the course's checks say. {lacking}")
    elif given.page:
        print(f"The student's code with all that the checks say: {given.page}")
    else:
        print("The student's code with all that the checks say: add --page FILE.html")
    return 0


def _summary(book: pd.DataFrame) -> None:
    """Points by student, and how many have each exercise right."""
    print(book.groupby("student")[["points", "out of"]].sum().to_string(), end="\n\n")
    right = book.assign(right=book["status"] == "right").groupby("exercise", sort=False)["right"]
    print(right.agg(["sum", "size"]).set_axis(["right", "of"], axis=1).to_string(), end="\n\n")


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
