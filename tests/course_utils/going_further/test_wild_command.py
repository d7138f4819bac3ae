"""The command line judges models of transformers, and models that a function returns."""

import json
import os
import random
import subprocess
import sys

import pytest
import torch

from course_utils.going_further import wild
from course_utils.going_further.wild import installed
from course_utils.going_further.wild.installed import library

pytestmark = pytest.mark.authors

SHORT = ("--mode", "kv_evaluate", "--max_seq_len", "8")


def a_file(folder, source):
    (folder / "mine.py").write_text(source)
    return f"{folder / 'mine.py'}:mine"


def test_a_type_is_judged_by_its_name_and_the_report_is_written(cli, tmp_path):
    file = tmp_path / "report.json"
    status, out, _ = cli(*SHORT, "--transformers", "gpt2", "--layers", "1", "--json", file)
    assert status == 0, out
    assert "Judged: gpt2; cache: DynamicCache of DynamicLayer" in out
    found = json.loads(file.read_text())
    assert found["passed"] and found["smallest"] is None
    assert found["versions"]["transformers"] == library().__version__
    assert {"name": "After a rollback", "verdict": "passed"}.items() <= {
        **next(some for some in found["subjects"] if some["name"] == "After a rollback")
    }.items()


def test_a_static_cache_is_judged_where_it_is_asked_for(cli):
    status, out, _ = cli(*SHORT, "--transformers", "llama", "--layers", "1", "--cache", "static")
    assert status == 0, out
    assert "cache: StaticCache of StaticLayer" in out
    assert "After a rollback: not judged, because the cache has no `truncate`" in out


def test_a_checkpoint_is_judged_in_its_own_dtype(cli, tmp_path):
    model = wild.small_model("llama", layers=1).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    assert wild.model_of(str(tmp_path)).dtype == torch.bfloat16
    status, out, _ = cli(*SHORT, "--transformers", tmp_path)
    assert status == 0, out
    assert "In bfloat16: passed" in out


FROM_ZERO = """
import torch
from transformers import LlamaForCausalLM
from course_utils.going_further import wild

class FromZero(LlamaForCausalLM):
    def forward(self, input_ids=None, past_key_values=None, position_ids=None, **more):
        position_ids = torch.arange(input_ids.size(1)).expand_as(input_ids)
        more |= {"past_key_values": past_key_values, "position_ids": position_ids}
        return super().forward(input_ids, **more)

def mine():
    model = wild.small_model("llama", layers=1)
    model.__class__ = FromZero
    return model
"""


def test_a_wrong_model_of_a_function_fails_and_its_mistake_is_named(cli, tmp_path):
    file = tmp_path / "report.json"
    status, out, _ = cli(*SHORT, "--model", a_file(tmp_path, FROM_ZERO), "--json", file)
    assert status == 1
    assert "Smallest failing use: " in out
    assert "Identical to a known mistake: positions_from_zero" in out
    found = json.loads(file.read_text())
    assert not found["passed"]
    assert found["smallest"]["position"] == 1
    assert found["smallest"]["line"].startswith("replay(model, [New(), Feed(1), Feed(1)]")
    assert found["mistake"].startswith("positions_from_zero: ")


COURSE = """
import torch
from course_utils.transformer import DecoderOnlyTransformer
from course_utils.cache_bugs import NoPositionOffset

def mine():
    torch.manual_seed(0)
    return {kind}(11, 8, 16, 1, 8, dropout=0.0)
"""


@pytest.mark.parametrize(
    ("kind", "status"), [("DecoderOnlyTransformer", 0), ("NoPositionOffset", 1)]
)
def test_a_function_may_return_any_model_with_the_interface(cli, tmp_path, kind, status):
    file = tmp_path / "report.json"
    spec = a_file(tmp_path, COURSE.format(kind=kind))
    found = cli("--mode", "kv_evaluate", "--model", spec, "--json", file)
    assert found[0] == status, found
    found = json.loads(file.read_text())
    assert found["passed"] is (status == 0)
    assert (found["diagnosis"] is None) is (status == 0)


def test_the_report_of_an_ordinary_model_is_written(cli, files, tmp_path):
    file = tmp_path / "report.json"
    assert cli("--mode", "kv_evaluate", *files, "--json", file)[0] == 0
    found = json.loads(file.read_text())
    assert [case["verdict"] for case in found["cases"]] == ["passed"] * len(found["cases"])
    assert found["passed"] and found["cases"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--transformers", "lama"), "Similar ones: llama"),
        (("--transformers", "t5"), "has no causal language model"),
        (("--transformers", "openai-gpt"), "OpenAIGPTLMHeadModel has no cache"),
        (("--transformers", "llama", "--layers", "0"), "--layers is for --transformers"),
        (("--transformers", "llama", "--model", "x.py:x"), "name two models"),
        (("--transformers", "mistral", "--cache", "fp8"), "full attention"),
        (("--transformers", "llama", "--cache", "hqq"), "Expected another --cache"),
        (("--transformers", ""), "expected a model type, such as llama"),
        (("--transformers", "llama", "--max_seq_len", "0"), "must be at least 1"),
        (("--transformers", "llama", "--d_model", "4"), "is for the course's model"),
        (("--transformers", "llama", "--json", "nowhere/x.json"), "no folder nowhere is there"),
        (("--transformers", "llama", "--json", "."), "expected the name of a file"),
        (("--cache", "static"), "is for a model of transformers"),
        (("--mode", "benchmark", "--transformers", "llama"), "is for --mode kv_evaluate"),
        (("--mode", "recall", "--json", "x.json"), "recall has none"),
    ],
)
def test_errors_say_what_to_do(cli, flags, said):
    status, _, err = cli(*SHORT, *flags)
    assert status == 2
    assert said in err


def test_a_folder_without_a_configuration_says_so(cli, tmp_path):
    status, _, err = cli(*SHORT, "--transformers", tmp_path)
    assert status == 2
    assert "holds no config.json; expected what `save_pretrained` writes" in err


@pytest.mark.parametrize("config", ["{nonsense", json.dumps({"model_type": "llama"})])
def test_a_folder_that_cannot_be_loaded_says_so(cli, tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    status, _, err = cli(*SHORT, "--transformers", tmp_path)
    assert status == 2
    assert "can't be loaded; expected what `save_pretrained` writes" in err


def test_a_type_that_cannot_be_made_small_says_so(cli, monkeypatch):
    def fails(*_):
        raise KeyError("its field")

    monkeypatch.setattr("course_utils.going_further.wild.command.model_of", fails)
    status, _, err = cli(*SHORT, "--transformers", "llama")
    assert status == 2
    assert "can't be made small; save a model of it" in err and "its field" in err


def test_a_report_that_cannot_be_written_is_noticed_before_the_judgement(cli, tmp_path):
    file = tmp_path / "report.json"
    file.write_text("old")
    file.chmod(0o400)
    if os.access(file, os.W_OK):
        pytest.skip("this user may write everything")
    status, out, err = cli(*SHORT, "--transformers", "llama", "--json", file)
    assert status == 2 and not out
    assert "can't be written" in err
    assert file.read_text() == "old"


OPTIONS = {
    "--transformers": ["llama", "lama", "", ".", "t5", "openai-gpt"],
    "--cache": ["static", "own", "fp8", "none"],
    "--layers": ["0", "-1", "two"],
    "--json": [".", "nowhere/x.json"],
    "--max_seq_len": ["0", "-3", "x"],
    "--model": ["x.py:x", "nothing"],
    "--d_model": ["8"],
}


@pytest.mark.parametrize("seed", range(30))
def test_no_wrong_use_ends_in_a_traceback(cli, seed):
    """Options drawn at random, with one at least that is wrong."""
    draw = random.Random(seed)
    names = draw.sample(list(OPTIONS), draw.randint(1, 4))
    flags = [flag for name in names for flag in (name, draw.choice(OPTIONS[name]))]
    try:
        status, _, err = cli("--mode", "kv_evaluate", *flags, "--layers", "0")
    except SystemExit as ended:  # argparse has said what is wrong, and ends the program
        status, err = ended.code, "error: "
    assert status == 2, flags
    assert "error: " in err and "Traceback" not in err, (flags, err)


def test_it_says_how_to_install_what_is_missing(cli, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(installed.importlib, "import_module", missing)
    status, _, err = cli(*SHORT, "--transformers", "llama")
    assert status == 2
    assert "pip install transformers" in err


def test_a_function_must_return_a_module_and_is_for_kv_evaluate(cli, tmp_path):
    spec_of_none = a_file(tmp_path, "def mine(size):\n    return size\n")
    status, _, err = cli(*SHORT, "--model", spec_of_none)
    assert status == 2 and "called without arguments, the function raised TypeError" in err
    spec = a_file(tmp_path, "def mine():\n    return 3\n")
    assert "returned int; expected a torch.nn.Module" in cli(*SHORT, "--model", spec)[2]
    status, _, err = cli("--mode", "evaluate", "--model", spec)
    assert status == 2
    assert "--mode kv_evaluate only" in err


def test_transformers_is_not_imported_until_it_is_needed():
    look = "import sys, course_utils.__main__; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", look], check=True)
