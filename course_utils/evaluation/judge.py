"""Is the model right, and is its cache right? (notebook 05)

`evaluate` compares logits without a cache with stored ones. `kv_evaluate` decides whether a cache
can be trusted: it feeds the same tokens in many different portions and demands the same logits.
Both take any model with the course's interface. Nothing here depends on how a cache is made.

Shapes: B batch, T tokens, V vocab_size.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .cases import TestCase, load_test_cases
from .precise import precise_copy, refusing_nan
from .report import Report, Result, first_difference
from .scripts import (
    after_rollback,
    alternating,
    can_roll_back,
    describe,
    follows_its_device,
    in_portions,
    max_seq_len,
    on_device,
    portionings,
    side_by_side,
    uncached,
    vocab_size,
)

GREEDY_STEPS = 8
NEARLY_GREEDY = 1e-8


class _Judge:
    """Runs checks on one model and collects what goes wrong, a model's own exceptions included."""

    def __init__(self, result: Result, tolerance: float):
        self.result = result
        self.tolerance = tolerance

    def logits(self, name: str, expected: Tensor, compute: Callable[[], Tensor]) -> None:
        self.result.checks += 1
        try:
            difference = first_difference(expected, compute(), self.tolerance)
        except Exception as error:
            self.fail(name, _explain(error))
        else:
            if difference is not None:
                self.fail(name, str(difference))

    def refuses(self, name: str, compute: Callable[[], object]) -> None:
        self.result.checks += 1
        try:
            compute()
        except Exception:
            return
        self.fail(name, "no error was raised; expected one that says the sequence is too long")

    def fail(self, name: str, problem: str) -> None:
        self.result.problems.append(f"{name}: {problem}")


def _explain(error: Exception) -> str:
    if isinstance(error, ValueError) and str(error):
        return str(error)
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0]}"


def evaluate(model: nn.Module, cases: Sequence[TestCase] | None = None) -> Report:
    """Compare the model's logits, without a cache, with the stored ones (to 1e-4)."""
    cases = load_test_cases() if cases is None else cases
    model, tolerance = precise_copy(model)
    tolerance = max(tolerance, 1e-4)
    report = Report("Evaluation Results", tolerance, [])
    for number, case in enumerate(cases):
        result = Result(f"case {number}", _shape(case.input_ids))
        ids = on_device(case.input_ids, model)
        _Judge(result, tolerance).logits(
            "without cache", case.no_cache, lambda ids=ids: uncached(model, ids)
        )
        report.cases.append(result)
    return report


def kv_evaluate(model: nn.Module, cases: Sequence[TestCase] | None = None) -> Report:
    """Decide whether the model's KV cache is right.

    Full logits are compared with those of the uncached forward pass (in float64 to 1e-9, where the
    device has it). For each test case: the stored cached logits (to 1e-4); every way of feeding the
    tokens in `portionings`; a batch of different rows; two generations one after the other and two
    at the same time; the uncached pass once more; greedy ids from `generate`. Then, once: a cache
    filled to `max_seq_len` exactly, and one token more, which must raise an error; cached calls
    with the model on another device. Two more where they are offered: a rollback, if the cache has
    `truncate`, and prompts of different length, if the model has `padded_cache`.
    """
    cases = load_test_cases() if cases is None else cases
    model, tolerance = precise_copy(model)
    report = Report("KV Cache Evaluation Results", tolerance, [])
    for number, case in enumerate(cases):
        result = Result(f"case {number}", _shape(case.input_ids))
        report.cases.append(result)
        _judge_case(model, case, result, tolerance)
    report.others.append(_judge_capacity(model, tolerance))
    ids = _random_ids(model, min(12, max_seq_len(model)), seed=1)
    if ids.size(1) >= 4 and can_roll_back(model, ids):
        report.others.append(_judge_rollback(model, ids, tolerance))
    if ids.size(1) >= 4 and hasattr(model, "padded_cache"):
        report.others.append(_judge_padding(model, ids, tolerance))
    report.others.append(_judge_device(model, ids, tolerance))
    return report


def _judge_case(model: nn.Module, case: TestCase, result: Result, tolerance: float) -> None:
    judge = _Judge(result, tolerance)
    ids = on_device(case.input_ids, model)
    try:
        expected = uncached(model, ids)
    except Exception as error:
        result.checks += 1
        return judge.fail("without cache", _explain(error))
    for portions in portionings(ids.size(1)):
        judge.logits(describe(portions), expected, lambda p=portions: in_portions(model, ids, p))
    stored = _Judge(result, max(tolerance, 1e-4))
    for name, logits, portions in (
        ("stored logits, at once", case.with_cache, (ids.size(1),)),
        ("stored logits, 1 at a time", case.sequential, (1,) * ids.size(1)),
    ):
        stored.logits(name, logits, lambda p=portions: in_portions(model, ids, p))
    _judge_company(model, ids, expected, judge)
    judge.logits("without cache, after cached calls", expected, lambda: uncached(model, ids))
    _judge_greedy(model, ids, judge)


def _judge_company(model: nn.Module, ids: Tensor, expected: Tensor, judge: _Judge) -> None:
    """Other rows beside it, another sequence before it, another one at the same time."""
    other = (ids + 1).flip(0, 1) % vocab_size(model)
    other_expected = uncached(model, other)
    portions = (-(-ids.size(1) // 2),) + (1,) * (ids.size(1) // 2)
    judge.logits(
        "in a batch with other rows",
        torch.cat([expected, other_expected]),
        lambda: in_portions(model, torch.cat([ids, other]), portions),
    )
    judge.logits("second generation", other_expected, lambda: in_portions(model, other, portions))
    judge.logits(
        "two generations at the same time",
        torch.cat([expected, other_expected]),
        lambda: torch.cat(alternating(model, ids, other)),
    )


@torch.no_grad()
def _judge_greedy(model: nn.Module, ids: Tensor, judge: _Judge) -> None:
    """`generate` at a temperature so small that it is greedy, with and without the cache."""
    steps = min(GREEDY_STEPS, max_seq_len(model) - ids.size(1))
    if steps < 1:
        return
    expected = ids
    for _ in range(steps):
        expected = torch.cat([expected, uncached(model, expected)[:, -1:].argmax(-1)], dim=1)
    for use_cache in (False, True):
        name = f"generate with use_cache={use_cache}"
        judge.result.checks += 1
        try:
            with refusing_nan(model):
                found = model.generate(ids, steps, temperature=NEARLY_GREEDY, use_cache=use_cache)
            wrong = (found[:, -steps:] != expected[:, -steps:]).any(0).nonzero()
        except Exception as error:
            judge.fail(name, _explain(error))
        else:
            if len(wrong):
                first = ids.size(1) + wrong[0].item()
                judge.fail(name, f"first differs at position {first} from the likeliest token")


def _judge_capacity(model: nn.Module, tolerance: float) -> Result:
    limit = max_seq_len(model)
    result = Result("Filled to max_seq_len", f"1 x {limit}")
    judge = _Judge(result, tolerance)
    ids = _random_ids(model, limit + 1, seed=0)
    portions = (limit - 3, 1, 1, 1) if limit > 3 else (1,) * limit
    try:
        expected = uncached(model, ids[:, :limit])
    except Exception as error:
        result.checks += 1
        judge.fail(f"{limit} tokens without cache", _explain(error))
        return result
    judge.logits(f"{limit} tokens", expected, lambda: in_portions(model, ids[:, :limit], portions))
    judge.refuses(f"token {limit + 1} without cache", lambda: uncached(model, ids))
    judge.refuses(f"token {limit + 1} on a full cache", lambda: in_portions(model, ids, (limit, 1)))
    judge.refuses("2 tokens where 1 has room", lambda: in_portions(model, ids, (limit - 1, 2)))
    return result


def _judge_rollback(model: nn.Module, ids: Tensor, tolerance: float) -> Result:
    result = Result("After a rollback", _shape(ids))
    judge, expected = _Judge(result, tolerance), uncached(model, ids)
    length = ids.size(1)
    for keep in (0, 1, length // 2, length - 1):
        name = f"rolled back to {keep}"
        judge.logits(name, expected, lambda keep=keep: after_rollback(model, ids, keep))
    return result


def _judge_padding(model: nn.Module, ids: Tensor, tolerance: float) -> Result:
    length = ids.size(1)
    result = Result("Prompts of different length", f"3 x up to {length}")
    rows = [ids[0], ids[0, length // 2 :], ids[0, length // 3 :]]
    expected = pad_sequence([uncached(model, row[None])[0] for row in rows], batch_first=True)
    judge = _Judge(result, tolerance)
    for steps in sorted({0, 1, length // 2 - 1}):
        name = f"prefill, then {steps} single tokens"
        judge.logits(name, expected, lambda steps=steps: side_by_side(model, rows, steps))
    return result


def _judge_device(model: nn.Module, ids: Tensor, tolerance: float) -> Result:
    result = Result("On another device", _shape(ids), checks=1)
    try:
        follows_its_device(model, ids)
    except Exception as error:
        _Judge(result, tolerance).fail("cached calls", _explain(error))
    return result


def _random_ids(model: nn.Module, length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return on_device(torch.randint(vocab_size(model), (1, length), generator=generator), model)


def _shape(ids: Tensor) -> str:
    return f"{ids.size(0)} x {ids.size(1)}"
