"""The walls of the sandbox, one by one: what is forbidden, what is counted, and what is gone."""

import contextlib
import ctypes
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attacks import RIGHT

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
START = "from grading.forbidden import Filter\nFilter().load()\n"


def forbidden_calls():
    from grading.forbidden import NEVER

    return NEVER


def run(code):
    """What Python says that runs this code, as a process of its own."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_no_forbidden_call_gets_through():
    """All of them in one process, each with arguments that Linux itself would not refuse so."""
    library = ctypes.CDLL("libseccomp.so.2")
    numbers = {
        name: library.seccomp_syscall_resolve_name(name.encode()) for name in forbidden_calls()
    }
    known = {name: number for name, number in numbers.items() if number >= 0}
    assert len(known) > 30
    code = f"""
import ctypes
{START}
call = ctypes.CDLL(None, use_errno=True).syscall
for name, number in {known!r}.items():
    found = call(number, -1, -1, -1, -1, -1)
    if (found, ctypes.get_errno()) != (-1, {errno.EPERM}):
        print(name)
"""
    assert run(code) == ""


REACHES_OUT = {
    "a namespace by clone": "os.fork = lambda: libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0)\n"
    "assert os.fork() < 0",
    "the first process": "os.kill(1, 0)",
    "the forker": "os.kill(2, 0)",
    "everything": "os.kill(-1, 0)",
    "a group": "os.killpg(os.getpgid(0), 0)",
    "limits of the forker": "resource.prlimit(2, resource.RLIMIT_CPU)",
    "signals from files": "fcntl.fcntl(0, fcntl.F_SETOWN, 2)",
    "signals from sockets": "fcntl.ioctl(socket.socket(), 0x8901, b'\\2\\0\\0\\0')",
    "leases": "fcntl.fcntl(0, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
    "a virtual machine's host": "socket.socket(40, socket.SOCK_STREAM)",
    "cryptography of the kernel": "socket.socket(38, socket.SOCK_SEQPACKET)",
}


@pytest.mark.parametrize("what", REACHES_OUT)
def test_what_reaches_out_is_refused(what):
    code = REACHES_OUT[what].replace(
        "assert os.fork() < 0", "if os.fork() < 0: raise PermissionError"
    )
    before = "import ctypes, fcntl, os, resource, socket\nlibc = ctypes.CDLL(None)\n"
    assert "PermissionError" in run(before + START + code)


def test_a_lock_is_granted_and_holds_nobody_up(tmp_path):
    """Two processes get the same lock: no news passes from one to the other."""
    path = tmp_path / "file"
    path.touch()
    code = f"""
import fcntl, os, subprocess, sys
{START}
file = open({str(path)!r}, "w")
fcntl.flock(file, fcntl.LOCK_EX)
fcntl.lockf(file, fcntl.LOCK_EX)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "-c", open("/proc/self/cmdline").read().split("\\0")[2], "x"])
print("held")
"""
    assert run(code).split() == ["held", "held"]


def test_what_honest_programs_need_works():
    code = f"""
import multiprocessing, os, signal, socket, subprocess, threading
{START}
thread = threading.Thread(target=print, args=("thread",))
thread.start()
thread.join()
child = subprocess.Popen(["sleep", "100"])
child.send_signal(signal.SIGTERM)
print(child.wait())
socket.socket(), socket.socket(socket.AF_UNIX), socket.socketpair()
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.map(abs, [-3]))
os.kill(os.getpid(), 0)
print("done")
"""
    assert run(code).split() == ["thread", "-15", "[3]", "done"]


TELLS = """
import fcntl, os, signal, time
file = open("/usr/bin/env")
told = False
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    told = True
print("it was" if told else "nobody", "telling")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)
    os._exit(0)
"""


def test_no_process_of_the_graded_run_is_there_when_the_page_is_made(monkeypatch):
    from grading import judge
    from grading.answers import Answer

    monkeypatch.setattr(judge, "_shown", watched := Watched(judge._shown))
    task = judge.task("01", 11, True, True)
    given = {name: Answer(problem="not done") for name in task.expected}
    given["softmax"] = Answer(code=TELLS + RIGHT)
    found = judge.judge(given, task, "a")
    assert found.statuses["softmax"] == "right" and found.said == {"softmax": ""}
    assert "nobody telling" in found.page and "it was telling" not in found.page
    assert watched.running == [[]]


class Watched:
    """A function, and which sandboxes of this process were there when it was called."""

    def __init__(self, function):
        self.function, self.running = function, []

    def __call__(self, work, *given):
        from grading.guard import below

        names = [Path(f"/proc/{one}/comm") for one in below(os.getpid())]
        self.running.append(
            [name for name in names if name.exists() and "bwrap" in name.read_text()]
        )
        return self.function(work, *given)


@pytest.fixture
def right_answers():
    from grading import judge
    from grading.answers import Answer

    found = judge.exercises("01")
    return {name: Answer(code=exercise.code) for name, exercise in found.items()}


@pytest.mark.parametrize("started", [0, 1])
def test_a_kernel_that_does_not_start_is_no_fault_of_an_answer(monkeypatch, right_answers, started):
    """Only the first `started` exercises ask for a kernel that there is."""
    from grading import judge, sandbox

    made = sandbox.kernels

    @contextlib.contextmanager
    def kernels(folder, name, *rest):
        for graft in [folder / f"{each}.ipynb" for each in right_answers][started:]:
            text = graft.read_text(encoding="utf-8").replace(f'"{name}"', '"nowhere"')
            graft.write_text(text, encoding="utf-8")
        with made(folder, name, *rest):
            yield

    monkeypatch.setattr(sandbox, "kernels", kernels)
    with pytest.raises(RuntimeError, match=sandbox.NOT_STARTED):
        judge.judge(right_answers, judge.task("01", 11))


def test_an_answer_that_was_given_up_keeps_its_status(monkeypatch, right_answers):
    """Also if the kernel of another exercise does not start after it."""
    from grading import judge, sandbox

    left = judge.NOTHING | {"why": sandbox.NOT_STARTED}
    outcomes = dict.fromkeys(right_answers, left) | {"softmax": judge.NOTHING}
    monkeypatch.setattr(judge, "_pytest", lambda work, names: outcomes)
    statuses = judge.judge(right_answers, judge.task("01", 11)).statuses
    assert statuses.pop("softmax") == sandbox.DIED
    assert {*statuses.values()} == {sandbox.NOT_STARTED}
