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
MOST = 5 * MEMORY  # what they share counted each time: to look closer takes too long
PAUSE = 1.0  # seconds for them to be stopped, while what they share is looked at
FILES = 20_000  # in one of its folders: an empty one takes memory as well
EVERY = 0.1  # seconds
PATIENCE = 10.0  # seconds for a killed process to be gone
FOLDERS = ("tmp", "sandbox", "dev/shm")
TOO_MUCH_MEMORY, TOO_MANY_FILES = "too much memory", "too many files"
HELD = ("RssAnon:", "RssShmem:", "VmSwap:")
SHARE = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")


def below(process: int) -> Iterator[int]:
    """All processes that come from this one, as far as they can be seen."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            listed = Path(f"/proc/{process}/task/{thread}/children").read_text(encoding="ascii")
            for child in map(int, listed.split()):
                yield child
                yield from below(child)


def held(process: int) -> int:
    """Bytes that a process holds, but for the files that it reads. 0 if it is gone.

    It is asked of each thread: Linux says nothing of a first thread that has ended before others.
    """
    return _first(process, "status", HELD)


def share(process: int) -> int:
    """As `held`, but memory that several processes share, as after a fork, is divided among them.

    Slower. Where Linux does not let one look, it is all that the process holds.
    """
    return _first(process, "smaps_rollup", SHARE) or held(process)


def _first(process: int, file: str, names: tuple[str, ...]) -> int:
    """Bytes: the sum of these lines of a file of Linux, from the first thread that has them."""
    for text in _of_threads(process, file):
        lines = [line for line in text.splitlines() if line.startswith(names)]
        if found := sum(int(line.split()[1]) for line in lines):
            return 1024 * found
    return 0


def _of_threads(process: int, file: str) -> Iterator[str]:
    """What this file says for each thread of a process, as far as it can be read."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with contextlib.suppress(OSError):
                yield Path(f"/proc/{process}/task/{thread}/{file}").read_text(encoding="utf-8")


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


def held_together(process: int) -> int:
    """Bytes that all processes below this one hold, what they share counted once.

    They are stopped meanwhile, so that none forks or fills more. If one goes on all the same, what
    each holds is summed.
    """
    with _stopped(process):
        together = sum(map(share, below(process)))
        every = list(below(process))
        return sum(map(held, every)) if any(map(_runs, every)) else together


@contextlib.contextmanager
def _stopped(process: int) -> Iterator[None]:
    """While this lasts, what is below a process is stopped, unless that takes longer than PAUSE."""
    stopped: set[int] = set()
    until = time.monotonic() + PAUSE
    try:
        while (running := set(filter(_runs, below(process)))) and time.monotonic() < until:
            for one in running:
                _signal(one, signal.SIGSTOP)
            stopped |= running
            time.sleep(0.001)
        yield
    finally:
        for one in stopped:
            _signal(one, signal.SIGCONT)


def too_much(process: int) -> str:
    """What all processes below this one have too much of, or an empty string."""
    every = list(below(process))
    most = sum(map(held, every))
    if most > MOST or (most > MEMORY and held_together(process) > MEMORY):
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
    """Whether a process has a thread that is neither stopped nor dead."""
    return any(_state(stat) not in "TtZX" for stat in _of_threads(process, "stat"))


def _state(stat: str) -> str:
    return stat.rsplit(")", 1)[1].split()[0]


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(process, number)
