"""What instructors run: `python -m grading --help`."""

import argparse
import os
import random
import sys
from pathlib import Path

from . import sandbox
from .batch import grade


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 with a message if something cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m grading", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("grade", help="grade a folder of submissions for one notebook")
    add.add_argument("submissions", type=Path, help="one notebook or folder for each student")
    add.add_argument("--notebook", required=True, choices=["01", "02", "03", "04", "05"])
    add.add_argument("--out", type=Path, default=Path("grades"), help="folder for the gradebook")
    add.add_argument(
        "--seed", type=int, help="draws the inputs; the same seed gives the same grades"
    )
    add.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    add.add_argument("--no-isolation", action="store_true", help="run students' code unprotected")
    given = parser.parse_args(arguments)
    reason = None if given.no_isolation else sandbox.why_not()
    if reason:
        return _refuse(
            f"Students' code cannot be isolated here: {reason}. Grade on Linux with bubblewrap, or "
            "run students' code unprotected with --no-isolation (every row will say so)."
        )
    seed = random.SystemRandom().randrange(2**31) if given.seed is None else given.seed
    try:
        book = grade(
            given.submissions, given.out, given.notebook, seed, given.jobs, not given.no_isolation
        )
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}.")
    except KeyboardInterrupt:
        return _refuse(
            f"Interrupted. What was graded is kept in {given.out}: run the same command with "
            f"--seed {seed} to go on."
        )
    if book.empty:
        return _refuse(f"{given.submissions} holds no submissions: one notebook or folder each.")
    table = book.groupby("student")[["points", "out of"]].sum()
    print(table.to_string())
    print(f"seed {seed}; written to {given.out / 'gradebook.csv'}")
    return 0


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
