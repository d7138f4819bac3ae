"""Grading on a Dask cluster that is lost meanwhile: it is said, and what was graded is kept."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from clusters import STUDENTS, hand_in, having

from course_utils.transformer import ROOT

pytestmark = pytest.mark.instructor
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


@contextmanager
def dask(*words):
    """A program of Dask's, which is killed in the end, also if it is stopped."""
    command = [sys.executable, "-m", "dask", *words, "--no-dashboard"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def stops_the_third(scheduler):
    """Changes: nothing is run, and the third submission stops this process."""

    def judge(given, task, student=""):
        begun.append(student)
        if len(begun) == 3:
            time.sleep(5)  # for the first two to be fetched
            os.kill(scheduler, signal.SIGSTOP)
        return Judged(dict.fromkeys(task.expected, "right"))

    from grading.judge import Judged

    begun = []
    return lambda worker: {"judge.judge": judge, "judge.judge_course": lambda task: None}


def stops_before_the_first(scheduler):
    """Changes: whoever judges the course's own answers stops this process."""

    def judge_course(task):
        os.kill(scheduler, signal.SIGSTOP)

    return lambda worker: {"judge.judge_course": judge_course}


@pytest.mark.parametrize("stops, kept", [(stops_the_third, True), (stops_before_the_first, False)])
def test_a_scheduler_that_does_not_answer_is_said(tmp_path, capsys, monkeypatch, stops, kept):
    """It is stopped: its connections stay, and nothing comes."""
    import distributed

    from grading import __main__
    from grading import cluster as grading_cluster

    monkeypatch.setattr(grading_cluster, "PATIENCE", 12.0)  # enough to begin on a busy machine
    told, out = tmp_path / "scheduler.json", tmp_path / "out"
    with (
        dask("scheduler", "--port", "0", "--scheduler-file", str(told)) as scheduler,
        dask("worker", "--scheduler-file", str(told), "--no-nanny", "--nthreads", "1"),
    ):
        while not told.exists():
            time.sleep(0.1)
        address = json.loads(told.read_text(encoding="utf-8"))["address"]
        with distributed.Client(address) as client:
            client.wait_for_workers(1)
            client.register_plugin(having(stops(scheduler.pid)))
        command = ["grade", str(hand_in(tmp_path / "in")), "--notebook", "01", "--no-feedback"]
        command += ["--out", str(out), "--dask", address, "--seed", "5"]
        assert __main__.main(command) == 2
    said = capsys.readouterr().err
    assert f"The Dask scheduler at {address} does not answer. What was graded is kept" in said
    assert "Error" not in said and "--seed 5 to go on" in said
    assert len(list(out.glob("results/*.json"))) < STUDENTS
    assert (out / "gradebook.csv").exists() == kept
