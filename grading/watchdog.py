"""A pytest plugin around nbval: every cell ends, whatever the kernel does, and results are JSON.

nbval 0.11 does not notice a dead kernel, and reads on for ever from one that floods its output.
Options come from the environment, because pytest loads a plugin before its own options are known:
GRADING_PROCESS (the grader, whose end is also ours), GRADING_RESULTS (file to write), GRADING_SPEC
(folder of kernelspecs), GRADING_SOCKETS (the folder that sandboxes can write to),
GRADING_KEEP_OUTPUTS (name of a notebook whose outputs are wanted), GRADING_OUTPUT_LIMIT (bytes per
notebook).
"""

import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from queue import Empty

import nbval.kernel
import nbval.plugin
import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from grading.sandbox import DIED, DISK, OUTPUT, TIME

GRACE = 3.0
POLL = 0.5
OUTPUT_LIMIT = int(os.environ.get("GRADING_OUTPUT_LIMIT", 2_000_000))
DISK_LIMIT = 1_000_000
GRADER = int(os.environ.get("GRADING_PROCESS", os.getppid()))
outcomes: dict[str, dict[str, dict]] = {}


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
    folder.chmod(0o777)
    manager = KernelManager(
        kernel_name=kernel_name,
        kernel_spec_manager=specs,
        transport="ipc",
        connection_file=str(folder / "kernel.json"),
    )
    manager.start_kernel(**options)
    client = manager.client()
    client.start_channels()
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


def _on_disk(folder: str) -> int:
    """Bytes of all files in `folder`, which may change meanwhile."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


class WatchedKernel(nbval.kernel.RunningKernel):
    """A kernel that is given up when it dies, runs past its deadline, or says or writes too much.

    `why` says which of these it was; it is empty while none was.
    """

    def __init__(self, *args: object, **options: object):
        self.deadline = float("inf")
        self.said = 0
        self.why = ""
        super().__init__(*args, **options)

    def _ask(self) -> str:
        """Why this kernel has to be given up now, or an empty string."""
        _end_if_alone()
        if self.said > OUTPUT_LIMIT:
            return OUTPUT
        if _on_disk(os.environ["GRADING_SOCKETS"]) > DISK_LIMIT:
            return DISK
        return "" if self.is_alive() else DIED

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        self.deadline = end = time.monotonic() + (timeout or 60)
        while True:
            left = end - time.monotonic()
            try:
                message = self.get_message("shell", timeout=min(POLL, max(0.01, left)))
            except Empty:
                self.why = self.why or self._ask() or (TIME if left <= 0 else "")
                if self.why:
                    raise
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                return
            if left <= 0:
                self.why = self.why or TIME
                raise Empty

    def get_message(self, stream: str, timeout: float | None = None) -> dict:
        if stream == "iopub":
            late = TIME if time.monotonic() > self.deadline + GRACE else ""
            self.why = self.why or (OUTPUT if self.said > OUTPUT_LIMIT else late)
            if self.said > OUTPUT_LIMIT or late:
                raise Empty
            if not self.is_alive():
                timeout = min(timeout or POLL, POLL)
        message = super().get_message(stream, timeout)
        self.said += len(str(message["content"]))
        return message


nbval.plugin.RunningKernel = WatchedKernel
nbval.kernel.start_new_kernel = _start


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = (yield).get_result()
    if report.when == "call" or report.outcome != "passed":
        file, cell = Path(str(item.fspath)).stem, item.name.removeprefix("Cell ")
        passed = report.outcome == "passed" and not hasattr(report, "wasxfail")
        kernel = getattr(item.parent, "kernel", None)
        found = {"passed": passed, "why": getattr(kernel, "why", DIED)}
        if file == os.environ.get("GRADING_KEEP_OUTPUTS"):
            found["outputs"] = item.test_outputs or []
        outcomes.setdefault(file, {})[cell] = found


def pytest_sessionfinish(session: pytest.Session) -> None:
    Path(os.environ["GRADING_RESULTS"]).write_text(json.dumps(outcomes), encoding="utf-8")
