"""The course's front door: sets up everything in .venv, once, and starts a task."""

import os
import sys
from pathlib import Path

if not (3, 11) <= sys.version_info[:2] <= (3, 14):  # an old Python must parse this whole file
    sys.exit("The course needs Python 3.11 to 3.14, and this is " + sys.version.split()[0] + ". "
             "Install one from https://www.python.org/downloads and start course.py with it.")

from setup.course_setup import PYTHON, STAMP, add, call, setup

USAGE = """usage: python3 course.py TASK [--cpu] [arguments for the task]
  lab     open the course in JupyterLab        (course.py lab --port 9999)
  test    run the tests and the notebooks      (course.py test -k softmax)
          with numbers, only these notebooks and their tests (course.py test 04 05)
  train   train the course's model             (course.py train --fresh)
  site    make the course's site               (course.py site --out folder)
  links   point all links at your copy on GitHub  (course.py links OWNER/REPO)
  setup   only set up .venv, which the other tasks do by themselves
  --cpu   on Linux, set up PyTorch without CUDA: 0.4 GB to download, not 3"""
ROOT = Path(__file__).resolve().parent


def lab_command() -> list:
    """What opens JupyterLab, also as root in a container and on a machine without a display."""
    command = [PYTHON, "-m", "jupyterlab", "--ServerApp.root_dir=" + str(ROOT)]
    command.append("--LabApp.app_settings_dir=" + str(ROOT / "setup" / "lab"))  # asks about no news
    first = min((path.name for path in ROOT.glob("notebooks/*.ipynb")), default="")
    command.append("--LabApp.default_url=/lab/tree/notebooks/" + first)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        command.append("--no-browser")
    return command


def main(arguments: list) -> int:
    """Set up, run the task that the first argument names, and return its status."""
    task, rest = "".join(arguments[:1]), [word for word in arguments[1:] if word != "--cpu"]
    commands = {
        "lab": lab_command(),
        "test": [PYTHON, "tests/run_all.py"],
        "train": [PYTHON, "-m", "course_utils.train"],
        "site": [PYTHON, "-m", "authoring.site"],
        "links": [sys.executable, "setup/links.py"],  # needs nothing but Python
        "setup": [],
    }
    asks = bool({"-h", "--help"} & set(arguments))
    ready = STAMP.exists() or task == "links"
    if task not in commands or asks and not (commands[task] and ready):
        print(USAGE, file=sys.stdout if asks else sys.stderr)
        return 0 if asks else 2
    if task != "links" and not asks:
        setup(cpu="--cpu" in arguments)
        if task == "site":
            add("site")
    return call(commands[task] + rest) if commands[task] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
