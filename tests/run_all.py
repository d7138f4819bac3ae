"""The notebooks, and the tests of what they import: what `python3 course.py test` runs.

Numbers in front of its arguments choose notebooks, with all their tests: `course.py test 04 05 -x`.
"""

import itertools
import json
import os
import re
import sys
from pathlib import Path

from again import ROOT, pytest, pytest_twice

DOCUMENTS = ("test_notebooks.py", "test_exercises.py", "test_same_code.py")
AND_THOSE_FOR_AUTHORS = "not (browser or instructor or peers or maintain or thorough)"


def ignored(notebook: Path) -> int:
    """Count the cells whose output nbval is told, by tag or comment, not to compare."""
    cells = json.loads((ROOT / notebook).read_text(encoding="utf-8"))["cells"]
    marks = ["".join(cell["source"]) + str(cell["metadata"].get("tags")) for cell in cells]
    return sum("nbval-ignore-output" in mark.lower().replace("_", "-") for mark in marks)


def notebooks() -> dict[str, int]:
    """The notebooks to test, as paths in the course's folder, and how many cells are ignored."""
    folder = ROOT / "notebooks"
    found = sorted((*folder.glob("*.ipynb"), *folder.glob("going_further/*.ipynb")))
    return {path.relative_to(ROOT).as_posix(): ignored(path) for path in found}


def tests_of(number: str) -> list[str]:
    """The test files of a notebook, by their names.

    They end with its number, or are called as a room of the package, or as its folder, where that
    says in its first lines that it belongs there: `(notebook 04)` or `(chapter 07)`.
    """
    names = [f"test_*_{number}.py", *DOCUMENTS]
    for room in (ROOT / "course_utils").rglob("*.py"):
        if re.search(rf"\((notebook|chapter) {number}\b", room.read_text(encoding="utf-8")[:300]):
            names += [f"test_{room.name}", f"test_{room.parent.name}.py"]
    found = {path for name in names for path in (ROOT / "tests").rglob(name)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def chosen(numbers: list[str]) -> tuple[list[str], list[str]]:
    """The notebooks with these numbers, and their tests. Exits if there is no such notebook."""
    every = {Path(path).name[:2]: path for path in notebooks() if Path(path).name[:2].isdigit()}
    if unknown := [number for number in numbers if number not in every]:
        sys.exit(f"There is no notebook {' or '.join(unknown)}. There are {', '.join(every)}.")
    tests = {path for number in numbers for path in tests_of(number)}
    return [every[number] for number in numbers], sorted(tests)


def main(arguments: list[str]) -> int:
    """The notebooks and the tests, two at a time: times are compared as ratios, in turns.

    What differs from run to run is not compared; how many cells that are is said at the end. What
    fails is run once more, alone, unless there are other arguments. With numbers, the tests for
    authors are among them.
    """
    numbers = [word.zfill(2) for word in itertools.takewhile(str.isdigit, arguments)]
    arguments = arguments[len(numbers) :]
    every = notebooks()
    paths, tests = chosen(numbers) if numbers else (list(every), ["tests"])
    # On a busy machine a cell of 05 took 195 seconds.
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=540"]
    if numbers:
        nbval += ["-m", AND_THOSE_FOR_AUTHORS]
    two = ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"]  # the longest first
    workers = two if (os.cpu_count() or 1) > 1 else []
    if arguments:  # after `-x`, most tests have not run
        status = pytest(*paths, *tests, *nbval, *workers, *arguments, OMP_NUM_THREADS="1")
    else:
        status = pytest_twice(*nbval, *workers, paths=[*paths, *tests], OMP_NUM_THREADS="1")
    print("Notebook cells whose output is not compared:", sum(every[path] for path in paths))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
