"""The course's front door: sets up everything in .venv, once, and starts a task."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # to get here, an old Python must be able to parse this whole file
    sys.exit("The course needs Python 3.11 or newer, and this is " + sys.version.split()[0] + ". "
             "Install one from https://www.python.org/downloads and start course.py with it.")

USAGE = """usage: python3 course.py TASK [arguments for the task]
  lab     open the course in JupyterLab        (course.py lab --port 9999)
  test    run the tests and the notebooks      (course.py test -k softmax)
  train   train the course's model             (course.py train --fresh)
  setup   only set up .venv, which the other tasks do by themselves"""
ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "course-setup.txt"  # written last: without it, .venv is not complete


def call(command: list, **variables: str) -> int:
    """Run a command in the course's folder and return its status."""
    environment = dict(os.environ, JUPYTER_PREFER_ENV_PATH="1", **variables)
    child = subprocess.Popen([str(word) for word in command], cwd=str(ROOT), env=environment)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the child too: wait for its end
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def setup() -> None:
    """Make .venv from nothing, unless it is complete and made from what is here now."""
    lists = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    made_from = "\n".join([hashlib.sha256(lists).hexdigest(), sys.version, str(ROOT)])
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text(encoding="utf-8") == made_from:
        return
    print("Setting up the course in .venv: some minutes, and only this once.", flush=True)
    STAMP.unlink(missing_ok=True)
    if call([sys.executable, "-m", "venv", "--clear", VENV]) != 0:
        sys.exit("Python could not make the folder .venv; its reason is above. On Debian or "
                 "Ubuntu, 'apt install python3-venv' may help; elsewhere, close what uses .venv "
                 "and delete it. Then run the same command again.")
    if call([PYTHON, "-m", "pip", "install", "-c", "constraints.txt", "-e", ".[test]"]) != 0:
        sys.exit("pip did not install the course's packages; its reason is above. Check network "
                 "and disk space, and run the same command again: it starts afresh.")
    STAMP.write_text(made_from, encoding="utf-8")


def lab_command() -> list:
    """What opens JupyterLab, also as root in a container and on a machine without a display."""
    command = [PYTHON, "-m", "jupyterlab", "--ServerApp.root_dir=" + str(ROOT)]
    first = min((path.name for path in ROOT.glob("notebooks/*.ipynb")), default="")
    command.append("--LabApp.default_url=/lab/tree/notebooks/" + first)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        command.append("--no-browser")
    return command


def count_ignored() -> int:
    """Count the notebook cells whose output nbval is told, by tag or comment, not to compare."""
    paths = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/going_further/*.ipynb")]
    cells = [cell for p in paths for cell in json.loads(p.read_text(encoding="utf-8"))["cells"]]
    marks = ["".join(cell["source"]) + str(cell["metadata"].get("tags")) for cell in cells]
    return sum("nbval-ignore-output" in mark.lower().replace("_", "-") for mark in marks)


def run_tests(arguments: list) -> int:
    """Unit tests, two at a time; then the notebooks, alone, because they measure time."""
    workers = ["-n", "2", "--dist", "loadscope"] if (os.cpu_count() or 1) > 1 else []
    statuses = [call([PYTHON, "-m", "pytest", "tests"] + workers + arguments, OMP_NUM_THREADS="1")]
    if statuses != [2]:  # 2: interrupted
        nbval = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=300", "notebooks"]
        statuses.append(call([PYTHON, "-m", "pytest"] + nbval + arguments))
    print("Notebook cells whose output is not compared:", count_ignored())
    fine = (0, 5) if arguments else (0,)  # 5: nothing here, when -k picked tests of the other part
    return next((status for status in statuses if status not in fine), min(statuses))


def main(arguments: list) -> int:
    """Set up, run the task that the first argument names, and return its status."""
    task, rest = "".join(arguments[:1]), arguments[1:]
    if task not in ("lab", "test", "train", "setup"):
        print(USAGE, file=sys.stderr)
        return 2
    setup()
    if task == "test":
        return run_tests(rest)
    commands = {"lab": lab_command(), "train": [PYTHON, "-m", "course_utils.train"]}
    return call(commands[task] + rest) if task in commands else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
