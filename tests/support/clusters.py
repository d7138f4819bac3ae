"""Workers of a Dask cluster that judge in other ways, and a batch for them."""

import os
import signal
import time
from contextlib import contextmanager

import nbformat
import pytest

from course_utils.transformer import ROOT

EDITION = ROOT / "notebooks" / "exercises" / "01_attention.ipynb"
ANSWERS = {
    "right": "softmax = lambda s: torch.softmax(s.float() if s.dtype.itemsize == 2 else s, -1)"
    ".nan_to_num(0.0).to(s.dtype)",
    "wrong": "softmax = lambda s: s",
}
STUDENTS = 8


def having(changes):
    """What gives each worker other things, also those workers that come later."""
    import distributed

    class Changes(distributed.WorkerPlugin):
        name = "changes"

        def setup(self, worker):
            self.patch = pytest.MonkeyPatch()
            for name, value in changes(worker).items():
                self.patch.setattr(f"grading.{name}", value)

        def teardown(self, worker):
            self.patch.undo()

    return Changes()


@contextmanager
def changed(cluster, changes):
    """While this lasts, all workers have other things."""
    import distributed

    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        client.register_plugin(having(changes))
        yield
        client.unregister_worker_plugin("changes")


def judging_at_once(started):
    """Changes: nothing is run, and everybody is right.

    Who is called killer ends the worker, with somebody beside it if anybody comes.
    """

    def judge(given, task, student=""):
        with open(started, "a", encoding="utf-8") as file:
            file.write(f"{student}\n")
        running.add(student)
        until = time.monotonic() + 10
        while student == "killer" and len(running) == 1 and time.monotonic() < until:
            time.sleep(0.01)
        if student == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        running.discard(student)
        return Judged(dict.fromkeys(task.expected, "right"))

    from grading.judge import Judged

    running = set()
    return lambda worker: {"judge.judge": judge, "judge.judge_course": lambda task: None}


def hand_in(folder):
    """Half of the students are right; every file is another one."""
    folder.mkdir()
    for number in range(STUDENTS):
        notebook = nbformat.read(EDITION, as_version=4)
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == "softmax":
                cell.source = f"{ANSWERS['wrong' if number % 2 else 'right']}  # {number}"
        nbformat.write(notebook, folder / f"student {number}.ipynb")
    return folder
