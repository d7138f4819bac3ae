"""Test cases: token ids and the logits that are right for them (notebook 05).

Shapes: B batch, T tokens, V vocab_size.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..transformer import ROOT

TEST_CASES = ROOT / "data" / "test_cases.json"
EXPECTED = ("expected_logits_no_cache", "expected_logits_with_cache", "expected_logits_sequential")


@dataclass
class TestCase:
    """Token ids (B, T) and the right logits (B, T, V): uncached, cached at once, one by one."""

    __test__ = False
    input_ids: Tensor
    no_cache: Tensor
    with_cache: Tensor
    sequential: Tensor


def load_test_cases(path: Path | str = TEST_CASES) -> list[TestCase]:
    """Read test cases in the assignment's format.

    Raises OSError if the file cannot be read; ValueError naming case and key if it is malformed.
    """
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON (is it complete?): {error}") from None
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{path} must hold a list of at least one test case.")
    return [_parse_case(case, f"{path}, case {i}") for i, case in enumerate(raw)]


def _parse_case(raw: object, where: str) -> TestCase:
    if not isinstance(raw, dict):
        raise ValueError(f"{where} must be an object with input_ids and {', '.join(EXPECTED)}.")
    ids = _parse_tensor(raw, "input_ids", where, 2)
    if ids.is_floating_point() or ids.numel() == 0 or ids.min() < 0:
        raise ValueError(f"{where}: input_ids must be whole numbers, 0 or more, at least one.")
    expected = [_parse_tensor(raw, key, where, 3).double() for key in EXPECTED]
    for key, logits in zip(EXPECTED, expected, strict=True):
        if logits.shape[:2] != ids.shape or logits.shape != expected[0].shape:
            shapes = ", ".join(str(tuple(logits.shape)) for logits in expected)
            raise ValueError(
                f"{where}: {', '.join(EXPECTED)} have shapes {shapes}; all three must be "
                f"(batch, seq_len, vocab_size) for input_ids of shape {tuple(ids.shape)}."
            )
        if not logits.isfinite().all():
            raise ValueError(f"{where}: {key} holds NaN or infinity; logits must be finite.")
    return TestCase(ids, *expected)


def _parse_tensor(raw: dict, key: str, where: str, dim: int) -> Tensor:
    if key not in raw:
        raise ValueError(f"{where} lacks the key {key!r}.")
    try:
        tensor = torch.tensor(raw[key])
    except (ValueError, TypeError, RuntimeError):
        raise ValueError(
            f"{where}: {key} must be nested lists of numbers, equally long at each level."
        ) from None
    if tensor.dim() == dim - 1:
        tensor = tensor.unsqueeze(0)
    if tensor.dim() != dim or tensor.dtype == torch.bool:
        raise ValueError(f"{where}: {key} must be {dim} lists deep, of numbers.")
    return tensor
