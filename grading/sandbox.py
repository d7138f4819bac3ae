"""Where a student's code runs: nothing of the machine but Python, for a short time.

Bubblewrap gives it its own processes, no network, a read-only system and small folders in memory.
In there, `forker.py` imports torch once for all exercises of a submission and forks a kernel for
each, which `forbidden.py` binds. From outside, `guard.py` watches over what all of it takes.
Source: https://github.com/containers/bubblewrap
"""

import errno
import functools
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .forbidden import Filter
from .guard import end, guarded

TIME, DIED, OUTPUT = "time was up", "the kernel died", "too much output"
BROKEN, NOT_STARTED = "its run broke off", "its kernel did not start"
LONGEST_PATH = 107 - len("/kernel-12345678/kernel-ipc-5")  # Linux has 107 bytes for a socket's
HANDOUT = Path("/handout")
LIMITS = "echo 1000 > /proc/self/oom_score_adj; ulimit -u 50 -v 4000000 -t 120 -f 100000 -n 500"
AGAIN = 'while :; do "$@"; sleep 0.1; done'
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
HERE = Path(__file__).resolve().parent
# Python as it is called in the sandbox too, where the folder that it was started from is not.
PYTHON = str(Path(sys.executable).parent.resolve() / Path(sys.executable).name)
INSIDE = {
    "HOME": "/sandbox",
    "PATH": "/usr/bin:/bin",
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "JUPYTER_PLATFORM_DIRS": "1",
}


@functools.cache
def why_not() -> str | None:
    """Why a kernel cannot be isolated on this machine; None if it can."""
    if not sys.platform.startswith("linux"):
        return f"bubblewrap is a program for Linux, and this is {sys.platform}"
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed (on Debian and Ubuntu: apt install bubblewrap)"
    try:
        Filter()
    except OSError:
        return "libseccomp is not installed (on Debian and Ubuntu: apt install libseccomp2)"
    trial = ["bwrap", *_apart(), "--ro-bind", "/", "/", *_as_nobody(), "true"]
    done = subprocess.run(trial, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()
        return f"bubblewrap does not work here ({said}); newer Ubuntus need an AppArmor profile"
    return None


@contextmanager
def kernels(folder: Path, name: str, isolated: bool, handout: Path | None = None) -> Iterator[None]:
    """While this lasts, a kernelspec `name` in `folder` / "specs" starts kernels in one sandbox.

    Nothing outside can be written to from there. With `handout`, the sandbox shows that folder, and
    its `course_utils` can be imported there. At the end all of its processes are gone. Why a guard
    ended them before is in `folder` / "sockets" / `name` / "ended". Raises OSError if the path of
    `folder` is too long.
    """
    sockets = folder / "sockets" / name
    if len(os.fsencode(sockets)) > LONGEST_PATH:
        why = "its path is too long for sockets: set TMPDIR to a folder with a shorter one"
        raise OSError(errno.ENAMETOOLONG, why, str(folder))
    sockets.mkdir(parents=True)
    address = str(sockets / "forker")
    command = [PYTHON, "-I", "-S", str(HERE / "connect.py"), address, "{connection_file}"]
    variables = {}
    if not isolated:
        command = [PYTHON, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        variables = {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(handout)} if handout else {})
    spec = {
        "argv": command,
        "display_name": name,
        "language": "python",
        "interrupt_mode": "message",
        "env": variables,
    }
    target = folder / "specs" / name
    target.mkdir(parents=True)
    (target / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    if not isolated:
        yield
        return
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()
        forker = ["setpriv", "--pdeathsig", "KILL", "bash", "-c", AGAIN, "bash"]
        forker += _bubblewrap(server.fileno(), handout)
        with subprocess.Popen(
            forker, start_new_session=True, pass_fds=[server.fileno()], **quiet
        ) as process:
            try:
                with guarded(process.pid, sockets / "ended"):
                    yield
            finally:
                end(process.pid)


def _apart() -> list[str]:
    """Namespaces. As root, no users of its own: the sandbox becomes an ordinary user instead."""
    if os.geteuid():
        return ["--unshare-all"]
    shared = ("ipc", "pid", "net", "uts", "cgroup-try")
    return [f"--unshare-{name}" for name in shared] + [
        word for right in ("SETUID", "SETGID", "SETPCAP") for word in ("--cap-add", f"CAP_{right}")
    ]


def _as_nobody() -> list[str]:
    """For root: a user whom no one else is, since Linux does not limit root's processes."""
    if os.geteuid():
        return []
    user = str(random.SystemRandom().randrange(10**6, 10**9))
    drop = ["--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return ["setpriv", "--reuid", user, "--regid", user, *drop]


def _bubblewrap(asked: int, handout: Path | None) -> list[str]:
    """The command that runs the forker in a sandbox; it is asked on the open file `asked`."""
    prefixes = {Path(p).resolve() for p in (sys.prefix, sys.base_prefix)}
    shown = [Path(p) for p in SYSTEM if os.path.exists(p)]
    shown += [p for p in sorted(prefixes) if not p.is_relative_to("/usr")]
    options = [*_apart(), "--die-with-parent", "--new-session", "--clearenv"]
    options += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/tmp", "/sandbox", "/dev/shm"):
        options += ["--perms", "1777", "--size", "50000000", "--tmpfs", folder]
    above = {parent for path in shown for parent in path.parents}
    for folder in sorted(above - {Path("/"), Path("/tmp")}):
        options += ["--perms", "0755", "--dir", str(folder)]
    for path in shown:
        options += ["--ro-bind", str(path), str(path)]
    for name in ("course_utils", "grading"):
        installed = Path(sysconfig.get_path("purelib")) / name
        options += ["--tmpfs", str(installed)] if installed.exists() else []
    for name in ("forker.py", "forbidden.py"):
        options += ["--ro-bind", str(HERE / name), f"/{name}"]
    inside, start = INSIDE, Path("/sandbox")
    if handout:
        options += ["--ro-bind", str(handout), str(HANDOUT)]
        inside, start = INSIDE | {"PYTHONPATH": str(HANDOUT)}, HANDOUT / "notebooks"
    options += ["--remount-ro", "/dev", "--remount-ro", "/"]
    for name, value in inside.items():
        options += ["--setenv", name, value]
    run = [*_as_nobody(), "bash", "-c", f'{LIMITS}; exec "$@"', "bash"]
    return ["bwrap", *options, "--chdir", str(start), *run, PYTHON, "/forker.py", str(asked)]
