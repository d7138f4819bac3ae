"""The command line, and a small model on disk to run it on."""

import json
import sys

import pytest
import torch
from helpers import cases_for, small_model

from course_utils import __main__ as command_line

SHAPE = {"vocab_size": 50, "d_model": 16, "d_ff": 32, "num_layers": 2, "max_seq_len": 24}


@pytest.fixture
def cli(monkeypatch, capsys):
    def run(*args):
        monkeypatch.setattr(sys, "argv", ["course_utils", "--device", "cpu", *map(str, args)])
        status = command_line.main()
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def write_cases(tmp_path):
    """A function that writes test cases to `cases.json`."""

    def write(cases):
        keys = ("no_cache", "with_cache", "sequential")
        raw = [
            {"input_ids": case.input_ids.tolist()}
            | {f"expected_logits_{key}": getattr(case, key).tolist() for key in keys}
            for case in cases
        ]
        (tmp_path / "cases.json").write_text(json.dumps(raw))

    return write


@pytest.fixture
def files(tmp_path, write_cases):
    """Flags for a small model on disk with its test cases."""
    model = small_model(dtype=torch.float32)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    write_cases(cases_for(model.double(), [(1, 1), (2, 5)]))
    flags = [f"--{name}={value}" for name, value in SHAPE.items()]
    return [
        *flags,
        "--num_heads=2",
        "--model_state_dict",
        tmp_path / "weights.pt",
        "--test_cases",
        tmp_path / "cases.json",
    ]
