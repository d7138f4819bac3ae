"""Inside the sandbox: imports torch once, and forks a kernel whenever one is asked for.

    python forker.py SOCKET

SOCKET is the number of the open file on which it is asked. A request is a line of JSON, what
Jupyter calls a connection file, and with it the five sockets on which the kernel is to listen: the
sandbox has no folder in common with the world outside, where these were made. The kernel lives
until it ends by itself or the one who asked hangs up. One lives at a time, and before the next one
starts, whatever the last one left behind is gone: its processes and its files. It cannot look into
this process, nor signal it (`forbidden.py`). If it could: a notebook's exercises are judged in
their order, and a kernel holds the course's answers to exercises before its own only.
"""

import ctypes
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import zmq
from forbidden import Filter

FOLDERS = ("/sandbox", "/tmp", "/dev/shm")
USED = ("ipykernel.kernelapp", "ipykernel.debugger", "pdb", "numpy", "torch")
DUMPABLE = 4  # prctl's number for: may other processes of this user look into this one?
LARGEST = 10_000  # bytes of a request
MANY = 200  # files and folders: a new sandbox is there sooner than they are deleted
bind = zmq.Socket.bind


def end_others() -> None:
    """End every other process of the sandbox."""
    try:
        os.kill(-1, signal.SIGKILL)
        while True:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def wiped() -> bool:
    """Delete all files that a kernel could write; whether they are gone.

    Python may be shown in /tmp, too.
    """
    shown = {parent for path in (sys.prefix, sys.base_prefix) for parent in Path(path).parents}
    shown |= {Path(sys.prefix), Path(sys.base_prefix)}
    left = [str(path) for folder in FOLDERS for path in set(Path(folder).iterdir()) - shown]
    if len(left) > MANY:
        return False
    # Not shutil.rmtree, which calls itself for each level of a folder.
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*command, "--", *left], stderr=subprocess.DEVNULL, check=False)
    return not any(map(os.path.lexists, left))


def run_kernel(connection: dict, listening: dict[str, int]) -> None:
    """Be a kernel that listens on these sockets: does not return before that kernel ends."""
    from ipykernel import kernelapp

    def bind_to_given(self: zmq.Socket, address: str) -> object:
        number = listening.pop(address, None)
        if number is not None:
            self.setsockopt(zmq.USE_FD, number)
        return bind(self, address)

    zmq.Socket.bind = bind_to_given
    path = Path("/sandbox/kernel.json")
    path.write_text(json.dumps(connection), encoding="utf-8")
    options = ["-f", str(path), "--HistoryManager.enabled=False"]
    kernelapp.launch_new_instance(argv=options)


def serve(server: socket.socket, forbidden: Filter) -> None:
    """Fork one kernel after the other, until one leaves what cannot be deleted.

    Then this process ends, its sandbox and all files with it, and another one begins outside.
    """
    while True:
        asking, _ = server.accept()
        request, numbers, _, _ = socket.recv_fds(asking, LARGEST, 5)
        if not request:  # who asked is gone
            continue
        connection = json.loads(request)
        ports = [f"{name}_port" for name in ("shell", "iopub", "stdin", "control", "hb")]
        addresses = [f"ipc://{connection['ip']}-{connection[port]}" for port in ports]
        child = os.fork()
        if child == 0:
            os.setsid()
            ctypes.CDLL(None).prctl(DUMPABLE, 1)
            asking.close()
            server.close()
            forbidden.load()
            return run_kernel(connection, dict(zip(addresses, numbers, strict=True)))
        for number in numbers:
            os.close(number)
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if select.select([asking], [], [], 0.02)[0]:
                break
        end_others()
        gone = wiped()
        asking.close()
        if not gone:
            return


if __name__ == "__main__":
    if Path("/proc/1/comm").read_text(encoding="utf-8").strip() != "bwrap":
        sys.exit("forker.py ends every process it can see: it only runs inside the sandbox.")
    ctypes.CDLL(None).prctl(DUMPABLE, 0)
    for module in USED:
        importlib.import_module(module)
    serve(socket.socket(fileno=int(sys.argv[1])), Filter())
