"""The command line: the assignment's words, exit statuses, files that are not what they seem."""

import io
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import cases_for, small_model
from test_transformer import RunsCode, assignment_state

from course_utils import __main__ as command_line
from course_utils.transformer import DecoderOnlyTransformer

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"


@pytest.mark.parametrize(
    ("mode", "title"),
    [("evaluate", "Evaluation Results:"), ("kv_evaluate", "KV Cache Evaluation Results:")],
)
def test_evaluation_speaks_as_the_assignment_does(cli, files, mode, title):
    status, out, err = cli("--mode", mode, *files)
    assert (status, err) == (0, "")
    assert out.splitlines()[:4] == [
        title,
        "  Num test cases: 2",
        "  All tests passed: True",
        "  Pass rate: 100.00% (2/2)",
    ]


def test_another_seed_of_weights_fails_with_status_1(cli, files, tmp_path):
    torch.save(small_model(seed=1, dtype=torch.float32).state_dict(), tmp_path / "weights.pt")
    status, out, _ = cli("--mode", "evaluate", *files)
    assert status == 1
    assert "  Pass rate: 0.00% (0/2)" in out


def test_a_name_that_a_file_on_windows_has_no_letters_for_is_written(monkeypatch):
    file = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(sys, "argv", ["course_utils"])
    monkeypatch.setattr(command_line, "run", lambda args: print("模型 passed") is None)
    assert command_line.main() == 0
    file.flush()
    assert file.buffer.getvalue().split() == [rb"\u6a21\u578b", b"passed"]


@pytest.mark.parametrize("mode", ["evaluate", "benchmark"])
def test_a_class_that_shares_nothing_with_the_course_but_its_interface(cli, files, mode):
    foreign = f"{SUPPORT / 'foreign_model.py'}:TupleCacheTransformer"
    status, out, err = cli("--mode", mode, "--model", foreign, *files)
    assert (status, err) == (0, ""), out


def test_somebody_elses_class_tells_a_story_with_the_shipped_weights(cli):
    foreign = f"{SUPPORT / 'foreign_model.py'}:TupleCacheTransformer"
    status, out, _ = cli("--mode", "generate", "--model", foreign, "--max_new_tokens", 7)
    assert status == 0
    assert out.strip().endswith("It is in the wooden box.")


def test_the_shipped_model_passes_its_ten_cases(cli):
    assert "(10/10)" in cli("--mode", "evaluate")[1]


def test_benchmark_prints_one_line_per_length_that_fits(cli, files):
    status, out, _ = cli("--mode", "benchmark", *files)
    assert status == 0
    lines = out.splitlines()
    assert re.fullmatch(r"Seq Len: 10 \| No KV: \d+\.\d{4}s \| With KV: \d+\.\d{4}s", lines[0])
    assert lines[1:5] == [
        f"Seq Len: {n} | left out: max_seq_len is 24" for n in (50, 100, 500, 1000)
    ]
    assert re.fullmatch(r"  Speedup: \d+\.\d\dx", lines[-1])


def test_generate_tells_the_story_on_and_answers(cli):
    prompt = "Mia put the red bell in the wooden box. Where is the red bell?"
    status, out, _ = cli("--mode", "generate", "--prompt", prompt, "--max_new_tokens", 7)
    assert status == 0
    assert out.strip() == prompt + " It is in the wooden box."


def test_recall_is_printed_by_distance(cli):
    status, out, _ = cli("--mode", "recall", "--num_stories", 3)
    line = re.compile(r"Recall (.+): [01]\.\d{3} \(n=\d+\)")
    names = [line.fullmatch(printed)[1] for printed in out.splitlines()]
    assert names == ["1-128", "129-512", "513-1000"]
    assert status == 0


def test_recall_of_untrained_weights_fails(cli, tmp_path):
    torch.manual_seed(0)
    config = command_line.load_config()
    weights = tmp_path / "weights.pt"
    torch.save(DecoderOnlyTransformer(**config).state_dict(), weights)
    status, out, _ = cli("--mode", "recall", "--num_stories", 2, "--model_state_dict", weights)
    assert status == 1
    assert "Recall 1-128: 0.0" in out


def test_the_assignments_shape_has_one_head(cli, tmp_path, write_cases):
    torch.manual_seed(0)
    torch.save(assignment_state(), tmp_path / "model.pt")
    model = DecoderOnlyTransformer(1000, 50, 100, 2, 128).eval()
    model.load_state_dict(torch.load(tmp_path / "model.pt"))
    write_cases(cases_for(model.double(), [(1, 3)]))
    flags = ["--vocab_size=1000", "--d_model=50", "--d_ff=100", "--num_layers=2"]
    status, out, _ = cli(
        "--mode",
        "kv_evaluate",
        *flags,
        "--max_seq_len=128",
        "--model_state_dict",
        tmp_path / "model.pt",
        "--test_cases",
        tmp_path / "cases.json",
    )
    assert status == 0, out


def bad_weights(path):
    torch.save({"norm.weight": RunsCode(path.parent / "was_run")}, path)


def truncated_weights(path):
    path.write_bytes(path.read_bytes()[:1000])


def pickled_weights(path):
    path.write_bytes(pickle.dumps(RunsCode(path.parent / "was_run")))


@pytest.mark.parametrize("spoil", [bad_weights, truncated_weights, pickled_weights, Path.unlink])
def test_bad_weights_end_in_one_line(cli, files, tmp_path, spoil):
    spoil(tmp_path / "weights.pt")
    ends_in_one_line(*cli("--mode", "evaluate", *files), "weights.pt")
    assert not (tmp_path / "was_run").exists()


def ends_in_one_line(status, out, err, words):
    assert status not in (0, 1)
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert words in err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-40], "not valid JSON"),
        (lambda text: "", "not valid JSON"),
        (lambda text: "[]", "at least one test case"),
        (lambda text: '{"input_ids": 1}', "must hold a list"),
        (lambda text: "[1]", "case 0 must be an object"),
        (lambda text: text.replace("input_ids", "ids", 1), "case 0 lacks the key 'input_ids'"),
        (lambda text: re.sub(r"-?\d+\.\d+", "NaN", text, count=1), "holds NaN or infinity"),
        (lambda text: re.sub(r"-?\d+\.\d+,", "", text, count=1), "have shapes (1, 1, 49), (1"),
        (lambda text: re.sub(r", [^,\]]+\]\]\]\}\]$", "]]]}]", text), "nested lists"),
        (lambda text: re.sub(r"\[\[\d+\]\]", "[[1, 2]]", text, count=1), "of shape (1, 2)"),
        (lambda text: re.sub(r"\[\[\d+\]\]", "[[0.5]]", text, count=1), "whole numbers"),
        (lambda text: re.sub(r"\[\[\d+\]\]", '[["a"]]', text, count=1), "nested lists"),
        (lambda text: re.sub(r"\[\[\d+\]\]", "[[true]]", text, count=1), "of numbers"),
    ],
)
def test_bad_test_cases_end_in_one_line(cli, files, tmp_path, change, words):
    path = tmp_path / "cases.json"
    path.write_text(change(path.read_text()))
    ends_in_one_line(*cli("--mode", "evaluate", *files), words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--d_ff", "64"], "does not fit the model"),
        (["--d_ff", "0"], "--d_ff 0: must be at least 1"),
        (["--num_heads", "3"], "num_heads=3"),
        (["--device", "abacus"], "'abacus' is not available"),
        (["--model", "nowhere.py:Model"], "expected FILE.py:ClassName"),
        (["--model", f"{SUPPORT / 'foreign_model.py'}:Nothing"], "no torch.nn.Module class"),
        (["--mode", "generate", "--prompt", "Mia put the red kea"], "'kea' is not one of"),
        (["--mode", "generate", "--max_new_tokens", "9000"], "do not fit"),
        (["--mode", "benchmark", "--max_seq_len", "15"], "does not fit the model"),
        (["--thorough"], "evaluate judges no cache"),
    ],
)
def test_bad_flags_end_in_one_line(cli, files, flags, words):
    ends_in_one_line(*cli("--mode", "evaluate", *files, *flags), words)


def test_it_runs_as_a_module(files):
    command = [sys.executable, "-m", "course_utils", "--mode", "evaluate", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  Pass rate: 100.00% (2/2)" in done.stdout
