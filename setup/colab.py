"""Makes Google Colab ready for a notebook, whose first cell fetches the course and calls `start`.

Colab comes with PyTorch and with most of what the course needs. What is there stays as it is, above
all PyTorch; only what is missing is installed, in the versions of constraints.txt.
"""

import importlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLABS_OWN = {"torch", "jupyterlab", "ipykernel"}  # it has a PyTorch, a page and a kernel
NAME = re.compile(r"[A-Za-z0-9._-]+")
FAILED = "pip could not install {}: its reason is above. Run this cell again, or restart."
SAME = "The outputs in the notebooks were made with another one: last digits can differ."


def start(notebook: str) -> None:
    """Install what is missing, make `course_utils` importable, and work in the notebook's folder.

    `notebook` is a path in the course. Raises RuntimeError if something could not be installed.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [NAME.match(line)[0] for line in [*project["dependencies"], "transformers"]]
    if missing := [name for name in needed if name not in COLABS_OWN and not version(name)]:
        install(missing)
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    importlib.invalidate_caches()
    os.chdir((ROOT / notebook).parent)
    torch = version("torch") or "missing"
    same = f"torch=={torch.partition('+')[0]}" in project["dependencies"]
    print(f"The course is in {ROOT}. PyTorch is Colab's own, {torch}.", "" if same else SAME)


def version(name: str) -> str:
    """The version of a package that is installed, or nothing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def install(missing: list[str]) -> None:
    """Let pip install packages; PyTorch must not change with them."""
    with tempfile.TemporaryDirectory() as folder:
        limits = Path(folder, "limits.txt")
        limits.write_text("\n".join([*pins(), f"torch=={version('torch')}"]), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(limits), *missing]
        if subprocess.run(command).returncode != 0:
            raise RuntimeError(FAILED.format(", ".join(missing)))


def pins() -> list[str]:
    """The lines of constraints.txt about packages that are not there."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [(NAME.match(line), line) for line in lines]
    return [line for name, line in found if name and not version(name[0])]
