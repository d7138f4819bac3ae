"""Watch over a sandbox from outside: what its processes hold together, and that they end."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

MEMORY = 2_000_000_000  # bytes of all processes of a sandbox; its files, in memory too, have 150 MB
FILES = 20_000  # in one of its folders: an empty one takes memory as well
EVERY = 0.1  # seconds
PATIENCE = 10.0  # seconds for a killed process to be gone
FOLDERS = ("tmp", "sandbox", "dev/shm")
TOO_MUCH_MEMORY, TOO_MANY_FILES = "too much memory", "too many files"
HELD = ("RssAnon:", "RssShmem:", "VmSwap:")


def below(process: int) -> Iterator[int]:
    """All processes that come from this one, as far as they can be seen."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            listed = Path(f"/proc/{process}/task/{thread}/children").read_text(encoding="ascii")
            for child in map(int, listed.split()):
                yield child
                yield from below(child)


def held(process: int) -> int:
    """Bytes that a process holds, but for the files that it reads. 0 if it is gone."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith(HELD))
    return 0


def files(process: int) -> int:
    """How many files there are in the fullest of the folders that a sandbox may write to.

    0 for a process that is in no sandbox, or in one that cannot be looked into.
    """
    root, most = f"/proc/{process}/root", 0
    with contextlib.suppress(OSError):
        os.stat(f"{root}/forker.py")
        for folder in FOLDERS:
            found = os.statvfs(f"{root}/{folder}")
            most = max(most, found.f_files - found.f_ffree)
    return most


def too_much(process: int) -> str:
    """What all processes below this one have too much of, or an empty string."""
    every = list(below(process))
    if sum(map(held, every)) > MEMORY:
        return TOO_MUCH_MEMORY
    return TOO_MANY_FILES if every and files(every[-1]) > FILES else ""


@contextlib.contextmanager
def guarded(process: int, ended: Path) -> Iterator[None]:
    """While this lasts, end what is below a process when it is too much; `ended` says what was."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            if why := too_much(process):
                ended.write_text(why, encoding="utf-8")
                for child in list(below(process)):
                    _signal(child, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def end(process: int) -> None:
    """Kill a process and all below it, and wait until they are gone."""
    _signal(process, signal.SIGSTOP)  # it starts no other one meanwhile
    until = time.monotonic() + PATIENCE
    while _runs(process) and time.monotonic() < until:
        time.sleep(0.001)
    with contextlib.ExitStack() as stack:
        handles = []
        for one in (process, *below(process)):
            with contextlib.suppress(OSError):
                handles.append(os.pidfd_open(one))
                stack.callback(os.close, handles[-1])
        for handle in handles:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        until = time.monotonic() + PATIENCE
        for handle in handles:
            select.select([handle], [], [], max(0.0, until - time.monotonic()))


def _runs(process: int) -> bool:
    """Whether a process is there, and neither stopped nor dead."""
    with contextlib.suppress(OSError):
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
        return stat.rsplit(")", 1)[1].split()[0] not in "TtZX"
    return False


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(process, number)
