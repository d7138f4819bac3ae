"""Every test and every notebook: what `python3 course.py test` runs, with its arguments.

Numbers in front of them choose notebooks and their tests: `course.py test 04 05 -x`.
"""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Here something is not compared, but no time has to be undisturbed: 03's are measured again if they
# were, and 11 has none.
BESIDE_OTHERS = ("03", "11")
DOCUMENTS = ("tests/test_notebooks.py", "tests/test_exercises.py", "tests/test_same_code.py")


def pytest(*arguments: str, **variables: str) -> int:
    """Run pytest in the course's folder and return its status."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=os.environ | variables
    )
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches pytest too: wait for its end
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


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


def is_timed(notebook: str, ignored: int) -> bool:
    """Whether a notebook measures times that other work on the machine would falsify."""
    return ignored > 0 and not Path(notebook).name.startswith(BESIDE_OTHERS)


def tests_of(number: str) -> list[str]:
    """The test files of a notebook, by their names.

    They end with its number, or are called as a room of the package which says in its first lines
    that it belongs there, as `(notebook 04)` or `(chapter 06)`.
    """
    names = [f"test_*_{number}.py"]
    for room in (ROOT / "course_utils").rglob("*.py"):
        if re.search(rf"\((notebook|chapter) {number}\b", room.read_text(encoding="utf-8")[:300]):
            names.append(f"test_{room.name}")
    found = {path for name in names for path in (ROOT / "tests").rglob(name)}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def chosen(numbers: list[str]) -> tuple[list[str], list[str]]:
    """The notebooks with these numbers, and their tests. Exits if there is no such notebook."""
    every = {Path(path).name[:2]: path for path in notebooks() if Path(path).name[:2].isdigit()}
    if unknown := [number for number in numbers if number not in every]:
        sys.exit(f"There is no notebook {' or '.join(unknown)}. There are {', '.join(every)}.")
    tests = [path for number in numbers for path in tests_of(number)]
    return [every[number] for number in numbers], [*tests, *DOCUMENTS]


def main(arguments: list[str]) -> int:
    """Unit tests and untimed notebooks, two at a time; then, alone, the notebooks with times.

    What differs from run to run is not compared, and nearly always a time: so these are known.
    """
    numbers = [word.zfill(2) for word in itertools.takewhile(str.isdigit, arguments)]
    arguments = arguments[len(numbers) :]
    every = notebooks()
    paths, tests = chosen(numbers) if numbers else (list(every), ["tests"])
    timed = [path for path in paths if is_timed(path, every[path])]
    untimed = [path for path in paths if path not in timed]
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"]
    two = ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"]  # as given: 04 is longest
    workers = two if (os.cpu_count() or 1) > 1 else []
    statuses = [pytest(*untimed, *tests, *nbval, *workers, *arguments, OMP_NUM_THREADS="1")]
    if timed and statuses != [2]:  # 2: interrupted
        statuses.append(pytest(*timed, *nbval, *arguments))
    print("Notebook cells whose output is not compared:", sum(every[path] for path in paths))
    fine = (0, 5) if arguments else (0,)  # 5: nothing here, when -k picked tests of the other part
    return next((status for status in statuses if status not in fine), min(statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
