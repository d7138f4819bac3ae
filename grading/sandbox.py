"""The kernel in which a student's code runs: nothing of the machine but Python, for a short time.

Bubblewrap gives it its own processes, no network, a read-only system and a work folder in memory.
Source: https://github.com/containers/bubblewrap
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

NAME = "graded"
LIMITS = "ulimit -v 4000000 -t 120 -f 100000"
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
INSIDE = {
    "HOME": "/sandbox",
    "PATH": "/usr/bin:/bin",
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "JUPYTER_PLATFORM_DIRS": "1",
}


def why_not() -> str | None:
    """Why a kernel cannot be isolated on this machine; None if it can."""
    if not sys.platform.startswith("linux"):
        return f"bubblewrap is a program for Linux, and this is {sys.platform}"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed (on Debian and Ubuntu: apt install bubblewrap)"
    trial = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()
        return f"bubblewrap does not work here ({said}); newer Ubuntus need an AppArmor profile"
    return None


def kernelspec(folder: Path, sockets: Path, isolated: bool) -> Path:
    """Write the kernelspec `NAME` into `folder` and return `folder`.

    `sockets` is the only place outside that the kernel can write to.
    """
    python = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {
        "argv": _bubblewrap(sockets, python) if isolated else python,
        "display_name": NAME,
        "language": "python",
        "interrupt_mode": "message",
        "env": {} if isolated else {"OMP_NUM_THREADS": "1"},
    }
    target = folder / NAME
    target.mkdir(parents=True, exist_ok=True)
    (target / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder


def _bubblewrap(sockets: Path, command: list[str]) -> list[str]:
    prefixes = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix)}
    shown = [Path(p) for p in SYSTEM if os.path.exists(p)]
    shown += [p for p in sorted(prefixes) if not p.is_relative_to("/usr")]
    options = ["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    options += ["--proc", "/proc", "--dev", "/dev", "--size", "50000000", "--tmpfs", "/tmp"]
    options += ["--size", "50000000", "--tmpfs", "/sandbox"]
    for path in shown:
        options += ["--ro-bind", str(path), str(path)]
    for name in ("course_utils", "grading"):
        installed = Path(sysconfig.get_path("purelib")) / name
        options += ["--tmpfs", str(installed)] if installed.exists() else []
    options += ["--bind", str(sockets), str(sockets)]
    for name, value in INSIDE.items():
        options += ["--setenv", name, value]
    run = ["bwrap", *options, "--chdir", "/sandbox", *command]
    return ["bash", "-c", f'{LIMITS}; exec "$@"', "bash", *run]
