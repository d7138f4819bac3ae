"""A pytest plugin around nbval: every cell ends, whatever the kernel does, and results are JSON.

nbval 0.11 does not notice a dead kernel, and reads on for ever from one that floods its output.
Options come from the environment, because pytest loads a plugin before its own options are known:
GRADING_PROCESS (the grader, whose end is also ours), GRADING_RESULTS (file to write, whole after
each notebook), GRADING_SPEC (folder of kernelspecs), GRADING_SOCKETS (the folder where kernels are
reached), GRADING_KEEP_OUTPUTS (name of a notebook whose outputs are wanted), GRADING_SECONDS (for a
notebook), GRADING_OUTPUT_LIMIT (bytes per notebook).
"""

import contextlib
import functools
import json
import os
import tempfile
import time
from collections import deque
from pathlib import Path
from queue import Empty

import nbval.kernel
import nbval.plugin
import pytest
import zmq
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from grading.sandbox import BROKEN, DIED, NOT_STARTED, OUTPUT, TIME

GRACE = 3.0
POLL = 0.5
OUTPUT_LIMIT = int(os.environ.get("GRADING_OUTPUT_LIMIT", 2_000_000))
EACH = 200  # bytes that a message counts for at least: reading it takes time
USUAL = 1500  # bytes around what a message says: who says it, when, to whom
LARGEST_FRAME, LONGEST_QUEUE = 4_000_000, 20  # bytes, messages that wait to be read
SECONDS = float(os.environ.get("GRADING_SECONDS", 60))
GRADER = int(os.environ.get("GRADING_PROCESS", os.getppid()))
outcomes: dict[str, dict] = {}


def _end_if_alone() -> None:
    """End this run if the grader that started it is gone."""
    if os.getppid() != GRADER:
        pytest.exit("The grader that started this run is gone.")


def _start(
    startup_timeout: float, kernel_name: str, **options: object
) -> tuple[KernelManager, BlockingKernelClient]:
    """A kernel that is heard. Its sockets are files: the sandbox has no network.

    Jupyter's own start takes longer: it asks once a second, and then listens until nothing is said.
    """
    specs = KernelSpecManager(kernel_dirs=[os.environ["GRADING_SPEC"]])
    sockets = Path(os.environ["GRADING_SOCKETS"]) / kernel_name
    folder = Path(tempfile.mkdtemp(prefix="kernel-", dir=sockets))
    manager = KernelManager(
        kernel_name=kernel_name,
        kernel_spec_manager=specs,
        transport="ipc",
        connection_file=str(folder / "kernel.json"),
    )
    manager.start_kernel(**options)
    client = manager.client(context=_context())  # it would make one without limits
    client.start_channels(hb=False)  # its thread would wait for ever for a kernel that hung up
    end = time.monotonic() + startup_timeout
    while manager.is_alive() and time.monotonic() < end and os.getppid() == GRADER:
        client.kernel_info()
        with contextlib.suppress(Empty):
            client.get_iopub_msg(timeout=0.05)
            return manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    _end_if_alone()
    raise RuntimeError("The kernel did not start.")


@functools.cache
def _context() -> zmq.Context:
    """What sockets are made from that take only so much: a longer message ends the connection."""
    context = zmq.Context()
    context.setsockopt(zmq.MAXMSGSIZE, LARGEST_FRAME)
    context.setsockopt(zmq.RCVHWM, LONGEST_QUEUE)
    context.setsockopt(zmq.SNDTIMEO, int(GRACE * 1000))  # a kernel that has hung up takes nothing
    return context


class WatchedKernel(nbval.kernel.RunningKernel):
    """A kernel that is given up when it dies, hangs up, runs past its deadline, or says too much.

    `why` says which of these it was; it is empty while none was. What the kernel says is read while
    it is waited for, and kept until nbval asks.
    """

    def __init__(self, *args: object, **options: object):
        self.deadline = self.end = float("inf")
        self.said = 0
        self.heard: deque[dict] = deque()
        self.why = ""
        self.lost: zmq.Socket | None = None
        super().__init__(*args, **options)
        self.end = time.monotonic() + SECONDS
        self.lost = self.kc.iopub_channel.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)

    def _ask(self) -> str:
        """Why this kernel has to be given up now, or an empty string."""
        _end_if_alone()
        if self.said > OUTPUT_LIMIT:
            return OUTPUT
        if not self.is_alive():
            ended = Path(os.environ["GRADING_SOCKETS"]) / self.km.kernel_name / "ended"
            return ended.read_text(encoding="utf-8") if ended.exists() else DIED
        return OUTPUT if self._cut_off() else ""

    def _cut_off(self) -> bool:
        """A living kernel's connection ends where a message was longer than the socket takes."""
        return bool(self.lost and self.lost.poll(0) and self.is_alive())

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> str:
        try:
            if self.why == BROKEN:
                raise zmq.Again
            return super().execute_cell_input(cell_input, allow_stdin)
        except zmq.Again:
            self.why = BROKEN
            raise

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        self.deadline = end = min(time.monotonic() + (timeout or 60), self.end)
        why = ""
        while not why:
            left = end - time.monotonic()
            self._listen()
            try:
                message = self.kc.get_shell_msg(timeout=min(POLL, max(0.01, left)))
            except Empty:
                why = self._ask() or (TIME if left <= 0 else "")
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                return
            why = TIME if left <= 0 else ""
        self.why = self.why or why
        raise Empty

    def _listen(self) -> None:
        """Read what the kernel has put out meanwhile, but no more than it may."""
        with contextlib.suppress(Empty):
            while self.said <= OUTPUT_LIMIT:
                self.heard.append(self._read(timeout=0))

    def _read(self, timeout: float | None) -> dict:
        message = self.kc.get_iopub_msg(timeout=timeout)
        self.said += max(EACH, len(str(message)) - USUAL) + sum(map(len, message["buffers"]))
        return message

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        if stream == "shell":
            return self.kc.get_shell_msg(timeout=timeout)
        late = TIME if time.monotonic() > self.deadline + GRACE else ""
        much = OUTPUT if self.said > OUTPUT_LIMIT or self._cut_off() else ""
        self.why = self.why or much or late
        if much or late:
            raise Empty
        if self.heard:
            return self.heard.popleft()
        if not self.is_alive():
            timeout = min(timeout or POLL, POLL)
        return self._read(timeout)


nbval.plugin.RunningKernel = WatchedKernel
nbval.kernel.start_new_kernel = _start


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = (yield).get_result()
    if report.when == "call" or report.outcome != "passed":
        file, cell = Path(str(item.fspath)).stem, item.name.removeprefix("Cell ")
        passed = report.outcome == "passed" and not hasattr(report, "wasxfail")
        kernel = getattr(item.parent, "kernel", None)
        found = {"passed": passed, "why": kernel.why if kernel else NOT_STARTED}
        if file == os.environ.get("GRADING_KEEP_OUTPUTS"):
            found["outputs"] = _kept(item.test_outputs or [])
        outcome = outcomes.setdefault(file, {"cells": {}, "seconds": 0.0, "why": DIED})
        outcome["cells"][cell] = found
        outcome["seconds"] += report.duration


def _kept(outputs: list[dict]) -> list[dict]:
    """The outputs, unless they are too deeply nested to be written."""
    try:
        json.dumps([[[[[[[[outputs]]]]]]]])
    except (TypeError, ValueError, RecursionError):
        return []
    return outputs


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last cell of a notebook: what is known of it is on disk."""
    if nextitem is None or nextitem.parent is not item.parent:
        results = Path(os.environ["GRADING_RESULTS"])
        part = results.with_suffix(".part")
        part.write_text(json.dumps(outcomes), encoding="utf-8")
        part.replace(results)
