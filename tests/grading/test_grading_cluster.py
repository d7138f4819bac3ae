"""Grading on a Dask cluster: a worker is killed, and nothing is lost or counted twice."""

import os
import signal
import subprocess
import tempfile
import threading
import time

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


@pytest.fixture
def work():
    """Where the workers keep what they grade: a short path, since sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        yield folder


@pytest.fixture
def cluster(work, monkeypatch):
    import distributed

    monkeypatch.setenv("TMPDIR", work)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster


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
    """As soon as there is a first result: both workers are then in the middle of another one."""
    end = time.monotonic() + 120
    while time.monotonic() < end and not list(out.glob("results/*.json")):
        time.sleep(0.05)
    judged = len(list(out.glob("results/*.json")))
    os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
    killed.append((judged, is_held(cluster, "judge_course", out)))


def is_held(cluster, name, out):
    """Whether the cluster keeps a task that is long done: it would do it again for nobody."""
    while len(list(out.glob("results/*.json"))) < STUDENTS - 1:
        if not any(str(key).startswith(name + "-") for key in list(cluster.scheduler.tasks)):
            return False
        time.sleep(0.05)
    return True


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
    thread = threading.Thread(target=kill_a_worker_at_work, args=(cluster, out, killed))
    thread.start()
    book = grade(folder, out, "01", 5, dask=address)
    thread.join()
    (before, held), first = killed[0], book[book["exercise"].str.startswith("1:")]
    assert 1 <= before < STUDENTS and not held
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
