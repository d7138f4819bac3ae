"""Makes the folder .venv for course.py: says what it downloads, and what to do if it fails."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "course-setup.txt"  # written last: without it, .venv is not complete
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
ABOUT_CUDA = """Most of it is CUDA, for NVIDIA GPUs. To do without, stop this with Ctrl-C and give
the same command with --cpu: 0.4 GB to download, 2 on disk."""
NO_ROOM = """There is too little room on the disk of {folder}: the set-up needs about {needed} GB
there, and {free:.1f} GB are free. Make room, and run the same command again."""
VENV_FAILED = """Python could not make the folder .venv; its reason is above. On Debian or Ubuntu,
'apt install python3-venv' may help; elsewhere, close what uses .venv and delete it. Then run the
same command again."""
PIP_FAILED = """The set-up is not complete: pip's reason is above. If it speaks of
- a connection, a time-out or retries: it needs the network, to reach https://pypi.org (behind a
  proxy, set HTTPS_PROXY), and for --cpu also https://download.pytorch.org;
- no matching distribution for torch: there is no PyTorch for this computer. There is for Macs with
  Apple silicon and macOS 14, for Windows and Linux with 64 bits, there with glibc 2.28 or newer;
- no space left on device: make room, also in the folder for temporary files;
- a missing file (Errno 2, on Windows): its path is too long. Move the course to C:/course.
Then run the same command again: it goes on, or starts afresh."""


def call(command: list) -> int:
    """Run a command in the course's folder and return its status."""
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    child = subprocess.Popen([str(word) for word in command], cwd=ROOT, env=environment)
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the child too: wait for its end
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()


def install(*what: str) -> None:
    """Let pip install in .venv, in the versions of constraints.txt, or exit with what to do."""
    if call([PYTHON, "-m", "pip", "install", "-c", "constraints.txt", *what]) != 0:
        sys.exit(PIP_FAILED)


def setup(cpu: bool = False) -> None:
    """Make .venv from nothing, unless it is complete and made from what is here now.

    With `cpu`, on Linux, with PyTorch's build without CUDA, and so again when it is made anew.
    """
    lists = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    made_from = "\n".join([hashlib.sha256(lists).hexdigest(), sys.version, str(ROOT)])
    stamp = STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""
    if PYTHON.exists() and stamp.removesuffix("\n--cpu") == made_from:
        return
    linux = sys.platform == "linux"
    cpu = linux and (cpu or stamp.endswith("\n--cpu"))
    announce(cuda=linux and not cpu)
    make_venv()
    if cpu:
        install("--no-deps", "--index-url", CPU_INDEX, "torch")
    install("-e", ".[test]")
    STAMP.write_text(made_from + "\n--cpu" * cpu, encoding="utf-8")


def announce(cuda: bool) -> None:
    """Say what is about to be downloaded, and exit if there is no room for it."""
    download, disk = (3, 6) if cuda else (0.4, 2)
    print(f"Setting up the course in .venv, once: about {download} GB to download, {disk} on disk.")
    if cuda:
        print(ABOUT_CUDA)
    sys.stdout.flush()
    for folder, needed in ((ROOT, disk), (tempfile.gettempdir(), download)):
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed:
            sys.exit(NO_ROOM.format(folder=folder, free=free, needed=needed))


def make_venv() -> None:
    """Make an empty .venv, or exit with what to do."""
    try:
        STAMP.unlink(missing_ok=True)
        VENV.mkdir(exist_ok=True)
    except OSError as error:
        sys.exit(f"The folder .venv cannot be made: {error}. Put the course where you may write.")
    if call([sys.executable, "-m", "venv", "--clear", VENV]) != 0:
        sys.exit(VENV_FAILED)


def add(extra: str) -> None:
    """Install one of pyproject's extras into a complete .venv, unless it is there."""
    mark = VENV / f"course-setup-{extra}.txt"
    if not mark.exists():
        print(f"Adding what '{extra}' needs to .venv, once: about 25 MB to download.", flush=True)
        install("-e", f".[test,{extra}]")
        mark.touch()
