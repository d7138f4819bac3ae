"""Grading on a Dask cluster: workers are killed, and nothing is lost, or counted or tried for ever.

Where it does not matter what is judged, the workers judge at once: everybody is right.
"""

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager

import nbformat
import pytest

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
EDITION = ROOT / "notebooks" / "exercises" / "01_attention.ipynb"
ANSWERS = {
    "right": "softmax = lambda s: torch.softmax(s.float() if s.dtype.itemsize == 2 else s, -1)"
    ".nan_to_num(0.0).to(s.dtype)",
    "wrong": "softmax = lambda s: s",
}
STUDENTS = 8


@pytest.fixture(scope="module")
def work():
    """Where the workers keep what they grade: a short path, since sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster(work):
    import distributed

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", work)
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster:
            yield cluster


@contextmanager
def changed(cluster, changes):
    """While this lasts, all workers have other things, also those workers that come later."""
    import distributed

    class Changes(distributed.WorkerPlugin):
        name = "changes"

        def setup(self, worker):
            self.patch = pytest.MonkeyPatch()
            for name, value in changes(worker).items():
                self.patch.setattr(f"grading.{name}", value)

        def teardown(self, worker):
            self.patch.undo()

    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)
        client.register_plugin(Changes())
        yield
        client.unregister_worker_plugin("changes")


def judging_at_once(started):
    """Changes: nothing is run, and everybody is right. Who is called so ends the worker."""

    def judge(given, task, student=""):
        with open(started, "a", encoding="utf-8") as file:
            file.write(f"{student}\n")
        time.sleep(0.2)
        if student == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        return Judged(dict.fromkeys(task.expected, "right"))

    from grading.judge import Judged

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


def kill_a_worker_at_work(cluster, out, killed):
    """As soon as there is a first result: both workers are then in the middle of others."""
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(out.glob("results/*.json")):
        time.sleep(0.05)
    judged = len(list(out.glob("results/*.json")))
    os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
    killed.append((judged, lets_go(cluster, out)))


def lets_go(cluster, out):
    """Whether the cluster forgets what is done: else it would do it again, for nobody."""
    judged = 0
    while judged < STUDENTS:
        judged = len(list(out.glob("results/*.json")))
        if judged > 1 and len(cluster.scheduler.tasks) <= STUDENTS - judged + 1:
            return True
        time.sleep(0.05)
    return False


def nothing_runs_on(work):
    """Whether the kernels of the killed worker end too, soon."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if subprocess.run(["pgrep", "-f", work], capture_output=True).returncode:
            return True
        time.sleep(0.2)
    return False


def test_a_killed_worker_costs_nobody_a_grade(cluster, work, tmp_path):
    from grading.batch import grade

    folder, out, killed = hand_in(tmp_path / "in"), tmp_path / "out", []
    address = cluster.scheduler_address
    given = cluster, out, killed
    thread = threading.Thread(target=kill_a_worker_at_work, args=given, daemon=True)
    thread.start()
    book = grade(folder, out, "01", 5, dask=address)
    thread.join()
    (before, forgotten), first = killed[0], book[book["exercise"].str.startswith("1:")]
    assert 1 <= before < STUDENTS and forgotten
    assert list(first["student"]) == [f"student {number}" for number in range(STUDENTS)]
    assert list(first["status"]) == ["right", "wrong"] * (STUDENTS // 2)
    assert len(list(out.glob("results/*.json"))) == STUDENTS
    assert nothing_runs_on(work)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("results/*.json")}
    again = grade(folder, out, "01", 5, dask=address)
    assert again.equals(book)
    assert kept == {path: path.stat().st_mtime_ns for path in out.glob("results/*.json")}


def test_a_cluster_that_is_not_there_is_said(tmp_path, capsys):
    from grading import __main__

    command = ["grade", str(hand_in(tmp_path / "in")), "--notebook", "01", "--no-feedback"]
    command += ["--out", str(tmp_path / "out"), "--dask", "tcp://127.0.0.1:9"]
    assert __main__.main(command) == 2
    assert "tcp://127.0.0.1:9" in capsys.readouterr().err


def test_who_ends_two_workers_is_tried_no_more_and_costs_nobody_else(tmp_path):
    """Not those either who are judged beside it, on the same worker."""
    import distributed

    from grading.batch import grade

    folder, out, started = hand_in(tmp_path / "in"), tmp_path / "out", tmp_path / "started"
    (folder / "student 0.ipynb").rename(folder / "killer.ipynb")
    options = {"processes": True, "dashboard_address": ":0"}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, **options) as cluster:
        with changed(cluster, judging_at_once(started)):
            book = grade(folder, out, "01", 5, dask=cluster.scheduler_address)
        assert not cluster.scheduler.extensions["events"]._events, "nothing of it is left there"
    status = book.groupby("student")["status"].first().to_dict()
    why = "could not be graded (two workers ended while they judged it)"
    assert status.pop("killer") == why
    assert status == {f"student {n}": "right" for n in range(1, STUDENTS)}
    begun = started.read_text().splitlines()
    assert begun.count("killer") == 2
    assert STUDENTS - 1 < len(begun) - 2 <= 2 * (STUDENTS - 1), "somebody was beside it"
    assert max(begun.count(student) for student in status) == 2
    assert len(list(out.glob("results/*.json"))) == STUDENTS - 1


def refused(cluster, folder, capsys):
    """What is said instead of grading, and that nothing was begun."""
    from grading import __main__

    command = ["grade", str(hand_in(folder / "in")), "--notebook", "01", "--no-feedback"]
    command += ["--out", str(folder / "out"), "--dask", cluster.scheduler_address]
    assert __main__.main(command) == 2
    assert not list(folder.glob("out/**/*.*")) and not (folder / "started").exists()
    return capsys.readouterr().err


def test_a_worker_that_cannot_isolate_is_refused(cluster, tmp_path, capsys):
    from grading.batch import grade

    judging, (first, *_) = judging_at_once(tmp_path / "started"), cluster.scheduler.workers
    unable = {"sandbox.why_not": lambda: "there is none"}
    with changed(cluster, lambda w: judging(w) | (unable if w.address == first else {})):
        said = refused(cluster, tmp_path, capsys)
        options = {"isolated": False, "dask": cluster.scheduler_address}
        book = grade(tmp_path / "in", tmp_path / "out", "01", 5, **options)
    assert f"  {first}: cannot isolate students' code: there is none\n" in said
    assert said.count("tcp://") == 1
    assert set(book["status"]) == {"right"}


def test_workers_with_other_versions_are_refused(cluster, tmp_path, capsys):
    with changed(cluster, lambda worker: {"cluster.versions": lambda: "torch 0.1"}):
        said = refused(cluster, tmp_path, capsys)
    assert ": has torch 0.1, and here is kv-cache-course " in said
    assert all(address in said for address in cluster.scheduler.workers)


def test_every_worker_judges_the_courses_answers(cluster, tmp_path, capsys):
    from grading.judge import NotFitToGrade

    def fails(task):
        raise NotFitToGrade("softmax: wrong")

    judging, (*_, last) = judging_at_once(tmp_path / "started"), cluster.scheduler.workers
    unfit = {"judge.judge_course": fails}
    with changed(cluster, lambda w: judging(w) | (unfit if w.address == last else {})):
        said = refused(cluster, tmp_path, capsys)
    assert f"  {last}: softmax: wrong\n" in said and said.count("tcp://") == 1


def test_a_cluster_without_workers_is_said(tmp_path, capsys, monkeypatch):
    import distributed

    from grading import cluster as grading_cluster

    monkeypatch.setattr(grading_cluster, "JOINING", 0.5)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as empty:
        said = refused(empty, tmp_path, capsys)
    assert "has no workers" in said and f"dask worker {empty.scheduler_address}" in said


BEGUN, ENDS = [], []


def judge_two_and_end_the_cluster(mark, expected, given, task, student):
    """The third submission comes when the first two are done, and ends what is in ENDS."""
    import distributed

    from grading.judge import Judged

    BEGUN.append(student)
    if len(BEGUN) > 2:
        time.sleep(1)
        worker = distributed.get_worker()
        worker.loop.add_callback(*ENDS or [worker.close])
        time.sleep(2)
    return Judged(dict.fromkeys(task.expected, "right"))


@pytest.mark.parametrize("lost", ["workers", "scheduler"])
def test_what_was_graded_on_a_cluster_that_is_lost_is_kept(tmp_path, capsys, monkeypatch, lost):
    import distributed

    from grading import __main__
    from grading import cluster as grading_cluster

    monkeypatch.setattr(grading_cluster, "PATIENCE", 1.0)
    monkeypatch.setattr(grading_cluster, "_judge_course", lambda task: None)
    monkeypatch.setattr(grading_cluster, "_judge_once", judge_two_and_end_the_cluster)
    BEGUN.clear(), ENDS.clear()
    out, options = tmp_path / "out", {"processes": False, "dashboard_address": ":0"}
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, **options) as small:
        if lost == "scheduler":
            ENDS.append(small.scheduler.close)
        command = ["grade", str(hand_in(tmp_path / "in")), "--notebook", "01", "--no-feedback"]
        command += ["--out", str(out), "--dask", small.scheduler_address, "--seed", "5"]
        assert __main__.main(command) == 2
    said = capsys.readouterr().err
    gone = {"workers": r"The workers of \S+ are", "scheduler": r"The Dask scheduler at \S+ is"}
    assert re.search(gone[lost] + " gone. What was graded is kept", said)
    assert "Error" not in said
    assert "--seed 5 to go on" in said
    kept = len(list(out.glob("results/*.json")))
    assert 0 < kept < STUDENTS and (out / "gradebook.csv").exists()
