"""A pytest plugin around nbval: every cell ends, whatever the kernel does, and results are JSON.

nbval 0.11 does not notice a dead kernel, and reads on for ever from one that floods its output.
Options come from the environment, because pytest loads a plugin before its own options are known:
GRADING_RESULTS (file to write), GRADING_OUTPUT_LIMIT (bytes per notebook), GRADING_SPEC (folder of
kernelspecs).
"""

import json
import os
import tempfile
import time
from pathlib import Path
from queue import Empty

import nbval.kernel
import nbval.plugin
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

GRACE = 3.0
POLL = 0.5
OUTPUT_LIMIT = int(os.environ.get("GRADING_OUTPUT_LIMIT", 2_000_000))
outcomes: dict[str, dict[str, str]] = {}


def _specs() -> KernelSpecManager:
    return KernelSpecManager(kernel_dirs=[os.environ["GRADING_SPEC"]])


def _manager(**options: object) -> KernelManager:
    """Sockets in a folder of their own instead of ports: the sandbox has no network."""
    options["kernel_spec_manager"] = _specs()
    folder = tempfile.mkdtemp(prefix="kernel-", dir=os.environ.get("GRADING_SOCKETS"))
    connection = str(Path(folder) / "kernel.json")
    return KernelManager(transport="ipc", connection_file=connection, **options)


class WatchedKernel(nbval.kernel.RunningKernel):
    """A kernel that is given up when it dies, runs past its deadline, or says too much."""

    def __init__(self, *args: object, **options: object):
        self.deadline = float("inf")
        self.said = 0
        super().__init__(*args, **options)

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        self.deadline = end = time.monotonic() + (timeout or 60)
        while True:
            try:
                message = self.get_message(
                    "shell", timeout=min(POLL, max(0.01, end - time.monotonic()))
                )
            except Empty:
                if not self.is_alive() or time.monotonic() > end:
                    raise
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                return
            if time.monotonic() > end:
                raise Empty

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        if stream == "iopub":
            if time.monotonic() > self.deadline + GRACE or self.said > OUTPUT_LIMIT:
                raise Empty
            if not self.is_alive():
                timeout = min(timeout or POLL, POLL)
        message = super().get_message(stream, timeout)
        self.said += len(str(message["content"]))
        return message


nbval.plugin.RunningKernel = WatchedKernel
nbval.kernel.KernelManager = _manager


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = (yield).get_result()
    if report.when == "call" or report.outcome != "passed":
        file, cell = Path(str(item.fspath)).stem, item.name.removeprefix("Cell ")
        passed = report.outcome == "passed" and not hasattr(report, "wasxfail")
        outcomes.setdefault(file, {})[cell] = "passed" if passed else "failed"


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ["GRADING_RESULTS"]).write_text(json.dumps(outcomes), encoding="utf-8")
