"""The survey of caches in the wild: its rows, its limits, and going on."""

from types import SimpleNamespace

import pandas as pd
import pytest

from benchmarks import wild as survey
from course_utils.going_further import wild
from course_utils.going_further.wild.installed import library

pytestmark = pytest.mark.authors


@pytest.fixture
def asked(tmp_path):
    """What a run is asked for: two types, with their own caches."""
    return SimpleNamespace(
        out=tmp_path / "wild.csv",
        types=["llama", "gpt2"],
        caches=["own"],
        again=False,
        full=False,
        jobs=1,
        seconds=1,
        gigabytes=1,
    )


@pytest.fixture
def judged(monkeypatch):
    """The pairs of type and cache that were judged; the judgement itself is left out."""
    found = []

    def pretend(name, cache, seconds, gigabytes, full):
        found.append((name, cache))
        row = {"type": name, "cache": cache, "verdict": "right", "seconds": 0.1, "position": None}
        return row | {"transformers": library().__version__}

    monkeypatch.setattr(survey, "in_a_process", pretend)
    return found


def test_a_run_that_was_stopped_goes_on(asked, judged):
    asked.types = ["llama"]
    survey.survey(asked)
    asked.types = ["llama", "gpt2"]
    table = survey.survey(asked)
    assert judged == [("llama", "own"), ("gpt2", "own")]
    assert list(table["type"]) == ["gpt2", "llama"]
    assert pd.read_csv(asked.out)["verdict"].tolist() == ["right", "right"]


def test_another_version_of_transformers_is_judged_again(asked, judged):
    survey.survey(asked)
    table = pd.read_csv(asked.out)
    table["transformers"] = "4.0.0"
    table.to_csv(asked.out, index=False)
    survey.survey(asked)
    assert len(judged) == 4
    assert len(pd.read_csv(asked.out)) == 2


def test_again_judges_what_is_there(asked, judged):
    survey.survey(asked)
    asked.again = True
    survey.survey(asked)
    assert len(judged) == 4


def test_judging_one_type_again_changes_no_other_line(asked, judged):
    asked.out.write_bytes(survey.TABLE.read_bytes())
    asked.types, asked.again = ["gpt2"], True
    survey.survey(asked)
    before, after = survey.TABLE.read_text().splitlines(), asked.out.read_text().splitlines()
    assert len(after) == len(before)
    assert {line[:10] for line in set(after) ^ set(before)} == {"gpt2,,own,", "gpt2,GPT2L"}


def test_a_type_without_a_cache_says_so():
    row = survey.survey_one("openai-gpt", "own")
    assert row["verdict"] == "no cache"
    assert "its forward takes none" in row["why"]


def test_a_type_that_refuses_the_first_token_does_not_offer_a_static_cache():
    row = survey.survey_one("minimax", "static")
    assert (row["verdict"], row["keeps"]) == ("not offered", None)
    assert row["why"].startswith("ValueError: MiniMax uses cache of its own")
    assert survey.survey_one("minimax", "own")["verdict"] == "wrong"


def test_a_type_that_works_without_a_cache_only_is_wrong():
    row = survey.survey_one("blt", "own")
    assert row["verdict"] == "wrong"
    assert "num_hidden_layers" in row["why"]


def test_what_cannot_be_made_says_why(monkeypatch):
    def fail(name):
        raise ImportError("it needs another package")

    monkeypatch.setattr(survey.wild, "small_model", fail)
    row = survey.survey_one("llama", "own")
    assert (row["verdict"], row["why"]) == ("not made", "ImportError: it needs another package")


def test_a_kind_of_cache_that_a_type_cannot_have_is_not_offered():
    row = survey.survey_one("mistral", "fp8")
    assert row["verdict"] == "not offered"
    assert "full attention" in row["why"]


def test_a_model_that_looks_ahead_is_unfit(monkeypatch):
    model = wild.small_model("bert")
    model.config.is_decoder = False
    for module in model.modules():
        module.is_decoder = module.is_causal = False
    monkeypatch.setattr(survey.wild, "small_model", lambda name: model)
    row = survey.survey_one("bert", "own")
    assert row["verdict"] in ("unfit", "no cache")


@pytest.mark.parametrize("seconds", [0.01, 1], ids=["by the clock", "of the processor"])
def test_a_process_that_takes_too_long_is_ended(monkeypatch, seconds):
    if seconds == 1:
        monkeypatch.setattr(survey, "SLOWER", 1000)
    row = survey.in_a_process("llama", "own", seconds=seconds, gigabytes=6)
    assert (row["verdict"], row["why"]) == ("limit", f"over {seconds:.0f} seconds")


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llama", "full"),
        ("gemma2", "window + full"),
        ("deepseek_v3", "latent"),
        ("deepseek_v32", "indexed"),
        ("mamba2", "state"),
        ("falcon_h1", "state + full"),
        ("lfm2", "state + full"),
    ],
)
def test_the_kinds_of_layers(name, layers):
    model = wild.small_model(name)
    keeps = wild.first_cache(wild.Adapted(model))
    assert survey.kinds_of_layers(model, keeps) == layers
