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


def ignored(notebook: Path) -> int:
    """Count the cells whose output nbval is told, by tag or comment, not to compare."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    marks = ["".join(cell["source"]) + str(cell["metadata"].get("tags")) for cell in cells]
    return sum("nbval-ignore-output" in mark.lower().replace("_", "-") for mark in marks)


def main(arguments: list[str]) -> int:
    """Untimed notebooks and unit tests, two at a time; then, alone, the notebooks with times.

    What differs from run to run is not compared, and is a time: so these notebooks are known.
    """
    folder = ROOT / "notebooks"
    counts = {
        p: ignored(p) for p in (*folder.glob("*.ipynb"), *folder.glob("going_further/*.ipynb"))
    }
    untimed = [path.relative_to(ROOT).as_posix() for path in sorted(counts) if not counts[path]]
    nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"]
    two = ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"]  # as given: 04 is longest
    workers = two if (os.cpu_count() or 1) > 1 else []
    statuses = [pytest(*untimed, "tests", *nbval, *workers, *arguments, OMP_NUM_THREADS="1")]
    if statuses != [2]:  # 2: interrupted
        others = [f"--ignore={path}" for path in untimed]
        statuses.append(pytest("notebooks", *nbval, *others, *arguments))
    print("Notebook cells whose output is not compared:", sum(counts.values()))
    fine = (0, 5) if arguments else (0,)  # 5: nothing here, when -k picked tests of the other part
    return next((status for status in statuses if status not in fine), min(statuses))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
