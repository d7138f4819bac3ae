"""What the processes of a sandbox hold together: shared memory counts once, and no bomb hides."""

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from attacks import RIGHT

from grading import guard

pytestmark = pytest.mark.instructor
KEPT = "import ctypes, os, signal, threading, time\nkept = bytearray(b'x') * 150_000_000\n"
SAID = "print(flush=True)\n"


@contextmanager
def started(code, said=1):
    """A process that runs this code on 150 MB of its own, and has printed `said` lines."""
    command = [sys.executable, "-c", KEPT + code]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            for _ in range(said):
                process.stdout.readline()
            yield process.pid
        finally:
            guard.end(process.pid)


@pytest.fixture
def sleeper():
    """A process with a child and a grandchild; the latter is stopped, and its parent is gone."""
    code = (
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "    time.sleep(100)\n"
    )
    with started(code + SAID + "time.sleep(100)\n") as process:
        while [*map(is_running, guard.below(process))].count(False) != 1:
            time.sleep(0.01)
        yield process


def is_running(process):
    """Whether a process is there, and neither stopped nor dead."""
    return guard._runs(process)


def test_all_processes_are_found_and_what_they_hold_is_summed(sleeper):
    found = list(guard.below(sleeper))
    assert len(found) == 2
    assert all(150e6 < guard.held(process) < 300e6 for process in (sleeper, *found))
    assert guard.held(2**22) == 0 and list(guard.below(2**22)) == []


def test_all_processes_are_gone_when_they_are_ended(sleeper):
    found = list(guard.below(sleeper))
    guard.end(sleeper)
    assert not any(os.path.exists(f"/proc/{process}/exe") for process in found)


def test_looking_closer_leaves_what_runs_running_and_what_is_stopped_stopped(sleeper):
    before = [*map(is_running, guard.below(sleeper))]
    assert sum(map(guard.held, guard.below(sleeper))) > 300e6
    assert 50e6 < guard.held_together(sleeper) < 200e6, "two of the three that share 150 MB"
    assert sorted(before) == [False, True]
    assert [*map(is_running, guard.below(sleeper))] == before


def test_a_process_whose_first_thread_has_ended_holds_what_it_holds():
    code = "threading.Thread(target=time.sleep, args=(100,)).start()\n" + SAID
    with started(code + "ctypes.CDLL(None).pthread_exit(None)\n") as process:
        while "VmRSS" in (status := read(f"/proc/{process}/status")):
            time.sleep(0.01)
        assert "Z (zombie)" in status
        assert is_running(process)
        assert guard.held(process) > 150e6 and guard.share(process) > 150e6


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# Three children; each says that it is there, and goes on.
CHILDREN = "for number in range(3):\n    if os.fork() == 0:\n"
SHARE = f"        {SAID}        time.sleep(100)\n"
WRITE = "        kept[::4096] = kept[1::4096]\n" + SHARE
FORK = f"""        more = bytearray(b"x") * 200_000_000
        {SAID}
        while True:
            if os.fork() == 0:
                time.sleep(0.05)
                os._exit(0)
            time.sleep(0.01)
            os.waitpid(-1, os.WNOHANG)
"""
FAMILIES = {
    "they share what they hold": (SHARE, 250e6, 1e9, False),
    "each has written to it": (WRITE, 250e6, 1e9, True),
    "each hides behind new ones": (FORK, 600e6, 9e9, True),
    "they share more than is looked at": (SHARE, 250e6, 400e6, True),
}


@pytest.fixture
def looks(monkeypatch):
    """What was found whenever a guard looked closer."""
    found, look = [], guard.held_together
    monkeypatch.setattr(guard, "held_together", lambda one: found.append(look(one)) or found[-1])
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guard_ends_what_holds_too_much_and_says_so(family, looks, tmp_path, monkeypatch):
    """Those that share hold 150 MB together, and 450 MB if that were counted for each."""
    (code, memory, most, ended), said = FAMILIES[family], tmp_path / "ended"
    monkeypatch.setattr(guard, "MEMORY", memory)
    monkeypatch.setattr(guard, "MOST", most)
    with started(f"{CHILDREN}{code}time.sleep(100)\n", 3) as process:
        until = time.monotonic() + 30
        with guard.guarded(process, said):
            while len(looks) < 3 and not said.exists() and time.monotonic() < until:
                time.sleep(0.05)
        assert said.exists() == ended and bool(looks) == (most > 450e6)
        while ended and any(map(is_running, guard.below(process))) and time.monotonic() < until:
            time.sleep(0.05)
        assert any(map(is_running, guard.below(process))) != ended
    assert not ended or said.read_text() == guard.TOO_MUCH_MEMORY


def test_what_cannot_be_stopped_counts_with_all_it_holds(monkeypatch):
    monkeypatch.setattr(guard, "PAUSE", 0.1)
    with started(f"{CHILDREN}{SHARE}time.sleep(100)\n", 3) as process:
        assert guard.held_together(process) < 250e6
        monkeypatch.setattr(guard, "_signal", lambda process, number: None)
        assert guard.held_together(process) > 450e6
        monkeypatch.undo()


POOL = """
import multiprocessing, time
large = torch.ones(150_000_000)
def part(at):
    time.sleep(0.3)
    return large[at::3].count_nonzero().item()
with multiprocessing.get_context("fork").Pool(3) as pool:
    assert sum(pool.map(part, range(3))) == len(large)
"""


def test_an_answer_that_shares_a_large_tensor_with_a_pool_is_right(looks):
    """Its four processes have 600 MB in common, more than 2 GB if that is counted for each."""
    from grading import judge
    from grading.answers import Answer

    task = judge.task("01", 11)
    given = {name: Answer(problem="not done") for name in task.expected}
    found = judge.judge(given | {"softmax": Answer(code=POOL + RIGHT)}, task)
    assert found.statuses["softmax"] == "right"
    assert looks and max(looks) < guard.MEMORY
