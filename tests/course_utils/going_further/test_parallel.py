"""The rooms of chapter 11: parts make the whole, and what goes wrong says so, in bounded time."""

import copy
import inspect
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers import cases_for, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from source import code_of, definitions
from torch import nn

from course_utils.evaluation import kv_evaluate
from course_utils.going_further.parallel import (
    comparisons,
    groups,
    launch,
    measurements,
)
from course_utils.going_further.parallel import figures as plots
from course_utils.going_further.parallel import tensor_parallel as tp
from course_utils.going_further.parallel.groups import Group, Meeting, in_threads
from course_utils.transformer import ROOT

CHAPTER = ROOT / "notebooks" / "going_further" / "11_many_processes.ipynb"


@pytest.mark.parametrize("broken", ["f", "g"])
def test_the_comparison_sees_a_missing_sum(broken, monkeypatch):
    """Without f only gradients are wrong, and of those not the last layer's own."""
    name = {"f": "copy_to", "g": "reduce_from"}[broken]
    monkeypatch.setattr(tp, name, lambda x, group: x)
    assert (in_threads(2, comparisons.logits)[0]["logits"] > 1e-9) == (broken == "g")
    found = in_threads(2, comparisons.gradients)[0]
    assert (found["loss"] > 1e-9) == (broken == "g")
    assert found["gradients"] > 1e-9
    assert len(found["by name"]) == 4 * 12 + 6
    if broken == "f":
        assert found["by name"]["output_projection.weight"] < 1e-9 < found["by name"]["norm.weight"]


def test_the_cache_of_parts_passes_the_harness_and_a_broken_one_does_not(monkeypatch):
    whole = small_model(vocab_size=52, num_heads=4, max_seq_len=8)
    cases = cases_for(whole, shapes=((2, 4),))

    def judged(group):
        return kv_evaluate(tp.parallelize(whole, group, gather=True), cases)

    for report in in_threads(2, judged):
        assert report.all_passed, report.problems
    forward = tp.ParallelLayer.forward

    def forgets(self, x, cache=None, layer=0):
        if self.group.rank and x.size(1) == 1 and cache is not None:
            cache = copy.deepcopy(cache)  # what this rank stores, nobody keeps
        return forward(self, x, cache, layer)

    monkeypatch.setattr(tp.ParallelLayer, "forward", forgets)
    assert not any(report.all_passed for report in in_threads(2, judged))


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 5),
    width=st.integers(1, 4),
    scale=st.sampled_from([1e-3, 1.0, 300.0]),
    seed=st.integers(0, 100),
)
def test_a_loss_and_a_token_from_parts(size, width, scale, seed):
    torch.manual_seed(seed)
    logits = (scale * torch.randn(3, 2, size * width)).double().round(decimals=1)
    targets = torch.randint(size * width, (3, 2))
    whole = logits.clone().requires_grad_()
    expected = F.cross_entropy(whole.flatten(0, 1), targets.flatten())
    expected.backward()

    def program(group):
        part = tp.cut(logits, group, dim=2).clone().requires_grad_()
        loss = tp.cross_entropy(part, targets, group)
        loss.backward()
        return loss, part.grad, tp.greedy_token(part[:, -1].detach(), group)

    for rank, (loss, gradient, token) in enumerate(in_threads(size, program)):
        assert torch.allclose(loss, expected, rtol=1e-12, atol=1e-9)
        assert torch.allclose(gradient, whole.grad.chunk(size, 2)[rank], rtol=0, atol=1e-9)
        assert torch.equal(token, logits[:, -1].argmax(dim=-1))


def test_what_cannot_be_shared_out_is_refused():
    whole = small_model(vocab_size=52, d_model=24, num_heads=6)
    with pytest.raises(ValueError, match="6 heads cannot be shared by 4"):
        in_threads(4, lambda group: tp.parallelize(whole, group))
    whole = small_model(vocab_size=51, num_heads=2)
    with pytest.raises(ValueError, match="51 cannot be cut into 2 equal parts"):
        in_threads(2, lambda group: tp.parallelize(whole, group))


def test_ranks_that_share_a_group_do_not_wait_forever():
    """Whoever uses another rank's group brings that rank's part to a round of its own."""
    groups_of = {}

    def program(group):
        group.all_reduce(torch.ones(1))
        groups_of[group.rank] = group
        group.all_reduce(torch.ones(1))
        return groups_of[0].all_reduce(torch.ones(1))

    with pytest.raises(RuntimeError, match="Rank 0's group waits .* used by another rank"):
        in_threads(2, program)


def test_threads_that_do_not_make_the_same_calls_are_told():
    def forgets(group):
        return group.all_reduce(torch.ones(2)) if group.rank else None

    with pytest.raises(RuntimeError, match="Rank 1 waits in its all-reduce number 1, to which ran"):
        in_threads(2, forgets)
    with pytest.raises(RuntimeError, match="number 1 is not the same on all ranks"):
        in_threads(2, lambda group: group.all_reduce(torch.ones(2 + group.rank)))

    def fails(group):
        if group.rank == 1:
            raise KeyError("mine")
        group.all_reduce(torch.ones(2))

    with pytest.raises(KeyError, match="mine"):
        in_threads(3, fails)


def test_ranks_that_come_at_once_make_one_round():
    """A round's dict takes 10 ms to make here: whoever looks it up meanwhile must not make two."""
    size, found = 4, {}

    def slowly():
        time.sleep(0.01)
        return {}

    def comes(rank, meeting, together):
        together.wait()
        found[rank] = meeting.bring(1, rank, "sum", torch.tensor(rank))

    meeting, together = Meeting(size), threading.Barrier(size)
    meeting.rounds = defaultdict(slowly)
    ranks = [
        threading.Thread(target=comes, args=(rank, meeting, together), daemon=True)
        for rank in range(size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(10)
    everybody = [("sum", torch.tensor(rank)) for rank in range(size)]
    assert found == dict.fromkeys(range(size), everybody)


def test_an_all_reduce_leaves_what_came_in_and_a_copied_model_keeps_its_group():
    def program(group):
        mine = torch.full((2, 3), float(group.rank + 1)).T
        found = group.all_reduce(mine)
        return mine, found, copy.deepcopy(group) is group, group.calls[0].nbytes

    for rank, (mine, found, same, nbytes) in enumerate(in_threads(3, program)):
        assert (mine == rank + 1).all() and (found == 6).all() and same and nbytes == 24


# Real processes. The chapter itself runs 1, 2 and 4 of them, and lets one die.


def test_a_rank_that_does_not_come_is_named_after_the_time_out():
    with pytest.raises(RuntimeError, match="Of 2 ranks, rank 0 waited in vain for rank 1"):
        launch.launch(2, "hangs", patience=3)


def test_a_rank_that_fails_is_named_with_its_error():
    with pytest.raises(RuntimeError, match="Rank 1 of 2 failed: ValueError: something of this"):
        launch.launch(2, "fails")


def test_processes_that_take_too_long_are_ended():
    with pytest.raises(TimeoutError, match="did not finish within 1 s"):
        launch.launch(1, "hangs", timeout=1)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux keeps the counters that it reads")
def test_bytes_sent_are_those_of_this_process_s_own_connections():
    server = socket.create_server(("127.0.0.1", 0))
    mine = socket.create_connection(server.getsockname())
    with server, mine, server.accept()[0] as other:
        before = measurements.sent_by_this_process()
        mine.sendall(bytes(12_345))
        assert len(other.recv(12_345, socket.MSG_WAITALL)) == 12_345
        other.sendall(bytes(55))
        assert len(mine.recv(55, socket.MSG_WAITALL)) == 55
        assert measurements.sent_by_this_process() - before == 12_345 + 55


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts")
def test_what_is_sent_again_to_a_slow_reader_counts_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        reader, _ = server.accept()

    def read_late():
        time.sleep(1)
        while reader.recv(65536):
            pass

    with sender, reader:
        before = measurements.sent_by_this_process()
        late = threading.Thread(target=read_late)
        late.start()
        sender.sendall(bytes(8_000_000))
        sender.shutdown(socket.SHUT_WR)
        late.join()
        assert measurements.sent_by_this_process() - before == 8_000_000


SUMMARY = """
Failures:
[1]:
  time      : 2026-01-01_00:00:00
  rank      : 0 (local_rank: 0)
  exitcode  : {0} (pid: 11)  (SIGTERM)
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : {1} (pid: 12)
"""


@pytest.mark.parametrize(
    ("codes", "notes", "told"),
    [
        ((-15, 3), {}, r"Rank 1 of 2 died without a word \(exit code 3\)"),
        ((1, -9), {0: "RuntimeError: gloo: closed"}, r"Rank 1 of 2 died .* \(exit code -9\)"),
        ((1, 1), {0: "RuntimeError: gloo: closed", 1: "KeyError: 'x'"}, "Rank 1 .*KeyError: 'x'"),
        ((1, -15), {0: "RuntimeError: gloo: Timed out"}, "rank 0 waited in vain for rank 1"),
        ((3221225786, 3), {}, r"Rank 1 of 2 died without a word \(exit code 3\)"),  # on Windows
    ],
)
def test_who_is_to_blame(codes, notes, told, tmp_path):
    for rank, note in notes.items():
        (tmp_path / f"rank-{rank}.error").write_text(note, encoding="utf-8")
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(launch.what_failed(2, SUMMARY.format(*codes), tmp_path))


def test_on_windows_all_processes_are_ended_and_none_waits_for_the_other(monkeypatch):
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process, asked = subprocess.Popen([sys.executable, "-c", parent], **pipes), []

    def taskkill(command, **_):
        asked.append(command)
        process.kill()
        process.stdin.close()  # ends the child, which holds the pipe, as taskkill would
        process.stdin = None

    monkeypatch.setattr(launch.sys, "platform", "win32")
    monkeypatch.setattr(launch.subprocess, "run", taskkill)
    launch._end(process)
    assert asked == [["taskkill", "/F", "/T", "/PID", str(process.pid)]]
    assert process.returncode is not None


def test_nothing_leaves_the_machine(monkeypatch):
    assert "--local-addr=127.0.0.1" in launch.torchrun(2, "folder")
    monkeypatch.setattr(launch.socket, "if_nameindex", lambda: [(1, "eth0"), (2, "lo0")])
    if sys.platform != "win32":
        assert launch.environment()["GLOO_SOCKET_IFNAME"] == "lo0"
    monkeypatch.setattr(launch.sys, "platform", "win32")
    assert launch.environment()["USE_LIBUV"] == "0"
    assert "--rdzv-conf=store_type=file" in launch.torchrun(2, "folder")


# The chapter and the package


def test_the_chapter_and_the_package_are_the_same_code():
    built = definitions(code_of(CHAPTER))
    held = definitions(inspect.getsource(groups)) | definitions(inspect.getsource(tp))
    shared = built.keys() & held.keys()
    assert shared == {
        "split_layer",
        "CopyTo",
        "ReduceFrom",
        "copy_to",
        "reduce_from",
        "parallel_feed_forward",
        "ParallelLayer",
        "cross_entropy",
        "greedy_token",
        "ring_all_reduce",
    }
    for name in shared:
        assert built[name] == held[name], name


# The figures


def test_the_figure_of_the_parts_draws_each_owner():
    first = torch.arange(4)[:, None].expand(4, 8)
    last = first.T
    names = ("W_q", "W_k", "W_v", "W_o", "fc1", "fc2")
    figure = plots.who_holds_what(dict(zip(names, [first] * 3 + [last, first, last], strict=True)))
    (ax,) = figure.axes
    drawn = [image.get_array().tolist() for image in ax.get_images()]
    assert drawn == [first.tolist()] * 3 + [last.tolist(), first.tolist(), last.tolist()]
    texts = [text.get_text() for text in ax.texts]
    assert [texts.count(rank) for rank in "0123"] == [6] * 4
    assert texts.count("f") == texts.count("g") == 2


def test_the_figure_of_bytes_draws_what_was_counted_and_measured():
    ring = pd.Series({1: 0.0, 2: 1.0, 4: 1.5})
    kept = pd.DataFrame({"weights": [1, 0.6, 0.4], "cache": [1, 0.5, 0.25]}, index=[1, 2, 4])
    figure = plots.sent_and_kept(pd.Series({2: 1.01}), ring, kept)
    left, right = figure.axes
    drawn = [list(line.get_ydata()) for line in left.get_lines() + right.get_lines()]
    for values in ([0, 1, 1.5], [1.01], [1, 0.6, 0.4], [1, 0.5, 0.25]):
        assert values in drawn


def test_the_figure_of_times_stacks_computing_and_all_reduces():
    index = pd.MultiIndex.from_product(
        [["prefill", "decode"], ["small", "wide"]], names=["task", "model"]
    )
    times = pd.DataFrame({"computing": 0.75, "all-reduces": 0.5}, index=index)
    figure = plots.shares(times)
    assert [ax.get_title("left") for ax in figure.axes] == ["prefill", "decode"]
    for ax in figure.axes:
        assert [bar.get_width() for bar in ax.patches] == [0.75] * 2 + [0.5] * 2
        assert [bar.get_x() for bar in ax.patches] == [0] * 2 + [0.75] * 2
        assert [label.get_text() for label in ax.get_yticklabels()] == ["small", "wide"]


def test_parts_are_parameters_and_can_be_trained():
    """Two steps of SGD on parts and on the whole: the same loss after each."""
    whole = small_model(vocab_size=52, num_heads=4)
    ids = comparisons.batch(2, 8, vocab_size=52)

    def losses(model, group=None):
        optimizer, found = torch.optim.SGD(model.parameters(), lr=0.05), []
        for _ in range(3):
            optimizer.zero_grad()
            loss = comparisons.train_loss(model, ids, group)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return torch.tensor(found)

    parts = in_threads(2, lambda group: losses(tp.parallelize(whole, group), group))
    alone = losses(whole)
    assert alone[2] < alone[0]
    for part in parts:
        assert torch.allclose(part, alone, rtol=0, atol=1e-6)
    assert isinstance(tp.ParallelOutput(nn.Linear(4, 4), Group(0, 2)).weight, nn.Parameter)
