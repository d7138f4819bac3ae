"""pytest, and what failed once more, alone: `python tests/again.py FILES AND OPTIONS OF PYTEST`.

Tests run beside others, on machines that do other things too. A test that passes alone was
disturbed; one that fails again is red. Either way pytest has printed why it failed at first.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS_FAILED = 1  # a status of pytest; the others say that it did not run to its end
MOST = 20  # if more fail, something is broken
ALONE = ("-n", "0", "--dist", "no")


def pytest(*arguments: str, **variables: str) -> int:
    """Run pytest in the course's folder and return its status."""
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=os.environ | variables
    )
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches pytest too: wait for its end
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def failures(cache: Path) -> list[str]:
    """What failed, from pytest's cache, as arguments for it: of a notebook all its cells."""
    written = cache / "v" / "cache" / "lastfailed"
    names = json.loads(written.read_text(encoding="utf-8")) if written.exists() else ()
    files = {name: name.partition("::")[0] for name in names}
    return sorted({file if file.endswith(".ipynb") else name for name, file in files.items()})


def pytest_twice(*arguments: str, paths: list[str], **variables: str) -> int:
    """Run pytest on the paths, and what failed once more, alone; return the last status.

    There is no second run if more than `MOST` failed, or if pytest itself did.
    """
    with tempfile.TemporaryDirectory() as cache:
        kept = ("-o", f"cache_dir={cache}")
        status = pytest(*paths, *arguments, *kept, **variables)
        failed = failures(Path(cache))
    if status != TESTS_FAILED or not 0 < len(failed) <= MOST:
        return status
    print("\nOnce more, alone, for the machine may have been busy:", *failed, sep="\n", flush=True)
    return pytest(*failed, *arguments, *ALONE, **variables)


if __name__ == "__main__":
    files = [word for word in sys.argv[1:] if word.endswith(".py")]
    sys.exit(pytest_twice(*[word for word in sys.argv[1:] if word not in files], paths=files))
