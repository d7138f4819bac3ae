"""The comparison with other engines: they compute the same model, and the ratios are ratios."""

import contextlib
import copy

import pandas as pd
import pytest
import torch
from helpers import small_model

from benchmarks import engines, peers
from benchmarks.engines import (
    BY_COLUMNS,
    ENGINES,
    FAST,
    MEMORY,
    PLAIN,
    TRANSFORMERS,
    Contender,
)

pytestmark = pytest.mark.authors

PROMPT = [3, 1, 4, 1, 5]


@pytest.fixture(scope="module")
def model():
    return small_model(seed=2, dtype=torch.float32)


@pytest.mark.parametrize("name", [*peers.UNCACHED, BY_COLUMNS, FAST, TRANSFORMERS])
def test_an_engine_says_what_the_plain_model_says(model, name):
    expected = ENGINES[PLAIN](model)(PROMPT, 19)
    assert len(set(expected)) > 3
    generate = ENGINES[name](copy.deepcopy(model))
    assert generate(PROMPT, 19) == expected
    assert generate(PROMPT, 1) == expected[:1]


@pytest.mark.peers
@pytest.mark.parametrize("name", peers.ENGINES)
def test_an_engine_in_c_plus_plus_says_what_the_plain_model_says(name):
    with Contender(name, "S", 1) as contender:
        plain = ENGINES[PLAIN](engines.course_model("S"))
        for prompt in (PROMPT, [7]):
            assert contender.run(prompt, 19)["ids"] == plain(prompt, 19)


@pytest.mark.peers
def test_the_command_writes_a_table_and_a_figure(tmp_path, monkeypatch):
    """One shape, without what has to be compiled, and one round."""
    monkeypatch.setattr(peers, "CACHED", (PLAIN, *peers.ENGINES))
    monkeypatch.setattr(peers, "UNCACHED", ())
    monkeypatch.setattr(peers, "PAUSE", 0)
    monkeypatch.setattr(peers, "LENGTHS", (10, 20))
    out = tmp_path / "found"
    arguments = ["peers.py", "--shapes", "S", "--threads", "1", "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    assert peers.main() == 0
    table = pd.read_csv(out.with_suffix(".csv"))
    assert set(table["contender"]) == {PLAIN, *peers.ENGINES}
    assert set(table["tokens"]) == {10, 20}
    assert (table["ids"] == "same").all()
    assert (table[["decode_ms", "prefill_ms", "limit_ms"]] > 0).all(axis=None)
    assert out.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.parametrize("name", [PLAIN, TRANSFORMERS])
def test_a_contender_answers_from_a_process_of_its_own(name):
    with Contender(name, "S", 1) as contender:
        answer = contender.run(PROMPT, 3)
        expected = ENGINES[PLAIN](engines.course_model("S"))(PROMPT, 3)
        assert answer["ids"] == expected
        assert answer["seconds"] > 0
        with pytest.raises(RuntimeError, match=f"'{name}' ended"):
            contender.run([0] * 1200, 3)
    assert contender.process.poll() is not None


@pytest.mark.parametrize("shape", ["S", "M"])
def test_what_is_not_there_is_left_out(shape, monkeypatch, capsys):
    everyone = peers.contenders_for(shape, quick=False)
    assert set(everyone) >= {*peers.CACHED} - {*peers.ENGINES}
    monkeypatch.setattr(peers, "has_compiler", lambda: False)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    left = peers.contenders_for(shape, quick=True)
    assert left == [PLAIN, BY_COLUMNS, FAST, MEMORY]
    assert "'course, compiled' is left out: it needs a C++ compiler" in capsys.readouterr().out


def measurement(contender, round_, decode, prefill=1.0, ids=(1, 2, 3)):
    place = {"shape": "S", "threads": 1, "tokens": 10, "round": round_, "contender": contender}
    return place | {"decode": decode, "prefill": prefill, "ids": ids, "peak": 5e6, "making": 2.0}


def test_the_table_has_medians_of_ratios_within_a_round():
    rows = []
    for r, busy in enumerate((1, 1, 7)):
        rows += [
            measurement(PLAIN, r, 0.004 * busy),
            measurement(TRANSFORMERS, r, 0.008 * busy, prefill=3.0, ids=(1, 2, 4)),
            measurement(MEMORY, r, 0.001 * busy, prefill=None, ids=None),
        ]
    table = peers.summary(pd.DataFrame(rows)).set_index("contender")
    assert list(table.index) == [PLAIN, TRANSFORMERS]
    plain = table.loc[PLAIN]
    assert plain["decode_ms"] == pytest.approx(4)
    assert plain["decode_vs_transformers"] == pytest.approx(2)
    assert plain["prefill_vs_transformers"] == pytest.approx(3)
    small = engines.course_model("S")
    more = 1 + peers.cache_bytes(small, 10) / peers.weight_bytes(small)
    assert plain["limit_ms"] == pytest.approx(more)
    assert plain["share_of_limit"] == pytest.approx(more / 4)
    assert plain["bandwidth_GBs"] == pytest.approx(peers.weight_bytes(small) / 1e6)
    assert list(table["ids"]) == ["same", "differ from 3 on"]


def test_the_limit_is_drawn_from_the_fastest_round_of_all_lengths():
    rows = []
    for tokens, seconds in ((10, 0.001), (500, 0.003), (1000, 0.002)):
        rows += [
            measurement(PLAIN, 0, 0.004) | {"tokens": tokens},
            measurement(MEMORY, 0, seconds, prefill=None, ids=None) | {"tokens": tokens},
        ]
    table = peers.summary(pd.DataFrame(rows)).set_index("tokens")
    small = engines.course_model("S")
    for tokens, shared in ((10, 1 / 4), (500, 3 / 4), (1000, 2 / 4)):
        more = 1 + peers.cache_bytes(small, tokens) / peers.weight_bytes(small)
        assert table["limit_ms"][tokens] == pytest.approx(more)
        assert table["share_of_limit"][tokens] == pytest.approx(shared * more)


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_a_limit_that_somebody_undercuts_is_measured_again(monkeypatch, capsys, wrong):
    """`wrong` times the memory is slower than a decoder that has to read as much."""
    runs = []

    def in_rounds(*arguments):
        runs.append(arguments)
        read = 0.005 if len(runs) <= wrong else 0.001
        memory = measurement(MEMORY, 0, read, prefill=None, ids=None)
        return pd.DataFrame([measurement(PLAIN, 0, 0.004), memory])

    monkeypatch.setattr(peers, "running", lambda *_: contextlib.nullcontext(["the same"]))
    monkeypatch.setattr(peers, "in_rounds", in_rounds)
    times = peers.measure("S", 1, 1, True)
    assert runs == [(["the same"], "S", 1, 1, True)] * min(3, wrong + 1)
    assert (peers.summary(times)["share_of_limit"].max() > peers.MOST) == (wrong == 3)
    assert capsys.readouterr().out.count("so it is none") == wrong


def test_the_limit_is_the_fastest_way_of_each_round():
    class Memory:
        name = MEMORY

        def run(self, prompt, new):
            return {"seconds": new * [0.3, 0.1, 0.2][prompt[0]]}

    assert peers.once(Memory(), [1, 2], 4) == {"decode": pytest.approx(0.1)}


def test_prompts_leave_room_for_what_is_decoded():
    for shape in engines.SHAPES:
        for length in peers.lengths_for(shape, quick=False):
            assert length + peers.DECODED[shape] + 1 <= engines.SHAPES[shape][4]
    assert peers.lengths_for("L", quick=False)[-1] == 900
