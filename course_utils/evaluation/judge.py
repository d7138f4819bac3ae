"""Is the model right, and is its cache right? (notebook 05)

`evaluate` compares logits without a cache with stored ones. `kv_evaluate` decides whether a cache
can be trusted: it plays scripts of what a user of a cache does, and demands the uncached logits
after every step. Both take any model with the course's interface. Nothing here depends on how a
cache is made.

Shapes: B batch, T tokens, V vocab_size.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from . import systematic
from .cases import TestCase, load_test_cases
from .devices import NotJudged, follows_its_device
from .differences import first_difference
from .lane import Lane, explain, lane_in
from .model import in_chunks, on_device, uncached, vocab_size
from .play import Outcome
from .precise import precise_copy
from .report import Report, Result
from .smaller import possible
from .steps import Feed, Generate, Script, Uncached, feeds
from .texts import texts_of
from .trial import Trial

GREEDY_STEPS = 8
NUM_SCRIPTS, MOST_TOKENS = 60, 400
FEWER, SHORT = 12, 100
NTH = 4
TITLE = "KV Cache Evaluation Results"


def evaluate(model: nn.Module, cases: Sequence[TestCase] | None = None) -> Report:
    """Compare the model's logits, without a cache, with the stored ones (to 1e-4)."""
    cases = load_test_cases() if cases is None else cases
    model, tolerance = precise_copy(model)
    tolerance = max(tolerance, 1e-4)
    report = Report("Evaluation Results", tolerance, [])
    for number, case in enumerate(cases):
        result = Result(f"case {number}", _shape(case.input_ids), checks=1)
        try:
            logits = uncached(model, on_device(case.input_ids, model))
            problem = first_difference(case.no_cache, logits, tolerance)
        except Exception as error:
            problem = explain(error)
        if problem is not None:
            result.problems.append(f"without cache: {problem}")
        report.cases.append(result)
    return report


def kv_evaluate(
    model: nn.Module,
    cases: Sequence[TestCase] | None = None,
    thorough: bool = False,
    stop: bool = False,
    tolerance: float | None = None,
    brief: bool = False,
) -> Report:
    """Decide whether the model's KV cache is right.

    After every step of every script, the full logits must be those of the uncached forward pass: in
    float64 to 1e-9, where the device has it, and in the model's own dtype, bfloat16 and float16 to
    what these allow. First the test cases, in all `ways_to_feed` and beside other texts, with the
    stored logits (to 1e-4); then what `systematic` holds; then scripts drawn by hypothesis, from a
    fixed seed, ten times as many if `thorough`. What a model does not offer is not judged: methods
    that it lacks, or that raise NotImplementedError; several rows, if it never takes any and says
    so. With `stop`, the first case or subject that fails is the last. `tolerance` is what float64
    logits may differ by instead of 1e-9, for a model that computes a part in float32 whatever its
    dtype. If `brief`, a few scripts of every subject are played, and all that generate: for many
    models, not for one that matters.
    """
    cases = load_test_cases() if cases is None else cases
    try:
        trial = Trial(model, thorough, tolerance, brief)
    except Exception as error:
        return _wrong_without_cache(cases, error)
    report = Report(TITLE, trial.main.tolerance, [], trial=trial)
    for number, case in enumerate(cases):
        result = Result(f"case {number}", _shape(case.input_ids))
        report.cases.append(_judge_case(trial, case, result))
        if stop and result.problems:
            break
    subjects = _subjects(trial, report)
    while not (stop and report.problems) and (result := next(subjects, None)) is not None:
        report.others.append(result)
    report.smallest = trial.smallest()
    return report


def _subjects(trial: Trial, report: Report) -> Iterator[Result]:
    """All that is judged beside the test cases; another dtype only if all has passed so far."""
    yield from _by_subject(trial)
    drawn = Result("Drawn scripts", "1 row and more")
    yield trial.draw(drawn, trial.main, FEWER if trial.brief else NUM_SCRIPTS, 0, MOST_TOKENS)
    if not trial.repeats_draws:
        why = "`generate` does not draw the same tokens from the same seed"
        yield Result("Drawn tokens", "", not_judged=why)
    if trial.not_in_main_dtype:
        yield Result("In float64", "", not_judged=trial.not_in_main_dtype)
    right_so_far = report.all_passed
    for dtype in _other_dtypes(trial):
        yield _in_dtype(trial, dtype, right_so_far)
    if not trial.brief:
        yield _on_another_device(trial)


def replay(
    model: nn.Module,
    script: Script,
    dtype: torch.dtype | None = None,
    tolerance: float | None = None,
) -> Outcome:
    """Play one script on a copy of the model, in float64 or in `dtype`: what `kv_evaluate` saw."""
    return lane_in(model, dtype, tolerance).play(script)


def _wrong_without_cache(cases: Sequence[TestCase], error: Exception) -> Report:
    problem = [f"without cache: {explain(error)}"]
    results = [Result(f"case {i}", _shape(c.input_ids), 1, problem) for i, c in enumerate(cases)]
    other = Result("Without a cache", "", 1, problem)
    return Report(TITLE, 0.0, results, [other])


def _judge_case(trial: Trial, case: TestCase, result: Result) -> Result:
    ids, lane = on_device(case.input_ids, trial.main.model), trial.main
    rows, seq_len = ids.shape
    try:
        lane.expected(ids)
    except Exception as error:
        result.checks += 1
        result.problems.append(f"without cache: {explain(error)}")
        return result
    given = texts_of(ids, vocab_size(lane.model))
    trial.judge(result, systematic.splits(rows, seq_len), given=given)
    for name, logits, chunks in (
        ("stored logits, at once", case.with_cache, (seq_len,)),
        ("stored logits, 1 at a time", case.sequential, (1,) * seq_len),
    ):
        _judge_stored(lane, result, name, (ids, logits, chunks))
    half = (-(-seq_len // 2),) + (1,) * (seq_len // 2)
    company = {"in a batch with other rows": feeds(*half, rows=2 * rows)}
    company |= systematic.in_company(rows, seq_len)
    steps = min(GREEDY_STEPS, lane.room - seq_len)
    if trial.offers.generate and steps > 0:
        for use_cache in (False, True):
            script = [Generate(seq_len, steps, rows=rows, use_cache=use_cache)]
            company[f"generate with use_cache={use_cache}"] = script
    return trial.judge(result, company, given=given)


def _judge_stored(
    lane: Lane, result: Result, name: str, stored: tuple[Tensor, Tensor, tuple[int, ...]]
) -> None:
    ids, logits, chunks = stored
    result.checks += 1
    try:
        found = in_chunks(lane.fresh(), ids, chunks)
        problem = first_difference(logits, found, max(lane.tolerance, 1e-4))
    except Exception as error:
        if len(ids) > 1 and (
            isinstance(error, NotImplementedError) or lane.takes_one_row(Feed, error)
        ):
            result.checks -= 1
            return
        problem = explain(error)
    if problem is not None:
        result.problems.append(f"{name}: {problem}")


def _by_subject(trial: Trial) -> Iterator[Result]:
    """What `systematic` holds, subject by subject; long texts in the model's own float32."""
    room, offered = trial.main.room, trial.offers
    for name, lacking, scripts in systematic.subjects(offered, room, vocab_size(trial.main.model)):
        result = Result(name, "1 row and more", not_judged=lacking)
        if not scripts:
            result.not_judged = lacking or f"max_seq_len={room} is too short for it"
        yield result if result.not_judged else trial.judge(result, scripts)
    filled = {f"token {room + 1} without cache": [Uncached(room + 1)]}
    filled |= systematic.filled(room, offered.generate, trial.thorough)
    result = Result("Filled to max_seq_len", f"1 x {room}")
    yield trial.judge(result, filled, trial.long_lane())
    blocks = Result("Around the ends of blocks", f"1 x up to {room}")
    lengths = list(systematic.around_blocks(room, trial.thorough))
    yield trial.judge(blocks, lengths, trial.long_lane())


def _other_dtypes(trial: Trial) -> list[torch.dtype]:
    done = next(trial.main.model.parameters()).dtype
    three = (trial.dtype, torch.bfloat16, torch.float16)
    return [dtype for dtype in dict.fromkeys(three) if dtype != done]


def _in_dtype(trial: Trial, dtype: torch.dtype, right_so_far: bool) -> Result:
    """A few scripts of every kind in another dtype, to what its rounding allows; fewer in float16,
    which has no large numbers."""
    result = Result(f"In {str(dtype).removeprefix('torch.')}", "1 row and more")
    if not right_so_far:
        result.not_judged = "something is wrong already"
        return result
    try:
        lane = trial.lane_in(dtype)
    except Exception as error:
        result.not_judged = f"without a cache it fails there too ({type(error).__name__})"
        return result
    if not math.isfinite(lane.tolerance):
        result.not_judged = "without a cache its numbers are too large there"
        return result
    samples = [s for s in systematic.samples(trial.offers, lane.room) if possible(s, lane.room)]
    if dtype == torch.float16 != trial.dtype:
        return trial.judge(result, samples[::NTH], lane)
    trial.judge(result, samples, lane)
    return trial.draw(result, lane, FEWER, 1, SHORT)


def _on_another_device(trial: Trial) -> Result:
    result = Result("On another device", "1 row", checks=1)
    try:
        follows_its_device(trial.main.fresh())
    except NotJudged as reason:
        result.not_judged = str(reason)
    except RuntimeError as error:
        trial.mixes_devices = str(error)
        result.problems.append(f"cached calls: {error}")
    return result


def _shape(ids: Tensor) -> str:
    return f"{ids.size(0)} x {ids.size(1)}"
