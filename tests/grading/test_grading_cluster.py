"""Grading on a Dask cluster: workers are killed, and nothing is lost, or counted or tried for ever.

Where it does not matter what is judged, the workers judge at once: everybody is right.
"""

import os
import signal
import subprocess
import tempfile
import threading
import time

import pytest
from clusters import STUDENTS, changed, hand_in, judging_at_once

pytestmark = pytest.mark.instructor


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
