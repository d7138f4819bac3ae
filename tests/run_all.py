"""Every test and every notebook: what `python3 course.py test` runs, with its arguments."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pytest(*arguments: str, **variables: str) -> int:
    """Run pytest in the course's folder and return its status."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=os.environ | variables
    )
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches pytest too: wait for its end
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def count_ignored(folder: Path = ROOT / "notebooks") -> int:
    """Count the notebook cells whose output nbval is told, by tag or comment, not to compare."""
    paths = [*folder.glob("*.ipynb"), *folder.glob("going_further/*.ipynb")]
    cells = [cell for p in paths for cell in json.loads(p.read_text(encoding="utf-8"))["cells"]]
    marks = ["".join(cell["source"]) + str(cell["metadata"].get("tags")) for cell in cells]
    return sum("nbval-ignore-output" in mark.lower().replace("_", "-") for mark in marks)


def main(arguments: list[str]) -> int:
    """Unit tests, two at a time; then the notebooks, alone, because they measure time."""
    workers = ["-n", "2", "--dist", "loadscope"] if (os.cpu_count() or 1) > 1 else []
    statuses = [pytest("tests", *workers, *arguments, OMP_NUM_THREADS="1")]
    if statuses != [2]:  # 2: interrupted
        nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "notebooks"]
        statuses.append(pytest(*nbval, *arguments))
    print("Notebook cells whose output is not compared:", count_ignored())
    fine = (0, 5) if arguments else (0,)  # 5: nothing here, when -k picked tests of the other part
    return next((status for status in statuses if status not in fine), min(statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
