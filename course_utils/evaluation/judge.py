"""Is the model right, and is its cache right?

`evaluate` compares logits without a cache with stored ones. `kv_evaluate` decides whether a cache
can be trusted: it feeds the same tokens in many different portions and demands the same logits.
Both take any model with the course's interface. Nothing here depends on how a cache is made.

Shapes: B batch, T tokens, V vocab_size.
"""

import contextlib
import copy
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from .left_padding import left_pad
from .stories import Question, Story, Tokenizer, held_out_stories
from .transformer import ROOT

TEST_CASES = ROOT / "data" / "test_cases.json"
EXPECTED = ("expected_logits_no_cache", "expected_logits_with_cache", "expected_logits_sequential")
ALL_PORTIONS_UP_TO = 24
GREEDY_STEPS = 8
NEARLY_GREEDY = 1e-8
RANGES = ((1, 128), (129, 512), (513, 1000))
RECALL_AIMS = {"1-128": 0.99, "129-512": 0.98, "513-1000": 0.95}


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


@dataclass(frozen=True)
class Difference:
    """The first place where logits are wrong, and by how much."""

    row: int
    position: int
    error: float
    largest: float

    def __str__(self) -> str:
        return (
            f"first differs at position {self.position} of row {self.row}, by {self.error:.2g} "
            f"(largest difference {self.largest:.2g})"
        )


def first_difference(expected: Tensor, actual: Tensor, tolerance: float) -> Difference | None:
    """Compare logits (B, T, V); None if all agree within `tolerance`. NaN never agrees.

    Earliest position first, then lowest row. Raises ValueError if the shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(
            f"logits have shape {tuple(actual.shape)}, expected {tuple(expected.shape)}: one row "
            "of logits for each token that was fed in"
        )
    error = (expected.double().cpu() - actual.double().cpu()).abs().nan_to_num(math.inf).amax(-1)
    wrong = (error > tolerance).nonzero().tolist()
    if not wrong:
        return None
    row, position = min(wrong, key=lambda where: (where[1], where[0]))
    return Difference(row, position, error[row, position].item(), error.max().item())


@dataclass
class Result:
    """The verdict on one test case, or on the capacity checks; passed if `problems` is empty."""

    name: str
    shape: str
    checks: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return self.checks > 0 and not self.problems


@dataclass
class Report:
    """What `evaluate` or `kv_evaluate` found; in a notebook it shows as a table."""

    title: str
    tolerance: float
    cases: list[Result]
    others: list[Result] = field(default_factory=list)

    @property
    def all_passed(self) -> bool:
        results = self.cases + self.others
        return bool(results) and all(result.passed for result in results)

    @property
    def num_passed(self) -> int:
        return sum(case.passed for case in self.cases)

    @property
    def problems(self) -> list[str]:
        return [f"{r.name}: {problem}" for r in self.cases + self.others for problem in r.problems]

    def __str__(self) -> str:
        rate = 100 * self.num_passed / len(self.cases)
        lines = [
            f"{self.title}:",
            f"  Num test cases: {len(self.cases)}",
            f"  All tests passed: {self.all_passed}",
            f"  Pass rate: {rate:.2f}% ({self.num_passed}/{len(self.cases)})",
            *(f"  {r.name}: {'passed' if r.passed else 'FAILED'}" for r in self.others),
        ]
        shown = [f"  {r.name}: {r.problems[0]}" for r in self.cases + self.others if r.problems]
        return "\n".join(lines + shown)

    def table(self) -> pd.DataFrame:
        """One row per test case, then one per further check."""
        rows = [
            {
                "case": result.name,
                "shape": result.shape,
                "comparisons": result.checks,
                "verdict": "passed" if result.passed else (result.problems or ["not run"])[0],
            }
            for result in self.cases + self.others
        ]
        return pd.DataFrame(rows).set_index("case")

    def _repr_html_(self) -> str:
        return self.table().to_html()


def precise_copy(model: nn.Module) -> tuple[nn.Module, float]:
    """A copy of the model for comparing logits, with the tolerance that its precision allows.

    float64 and 1e-9; on a device without float64 (MPS), float32 and 1e-3. Dropout is off, and
    missing rows are refused.
    """
    model = copy.deepcopy(model).eval()
    refuse_missing_rows(model)
    if next(model.parameters()).device.type == "mps":
        return model.float(), 1e-3
    return model.double(), 1e-9


def refuse_missing_rows(model: nn.Module) -> None:
    """Make embeddings raise IndexError on every device when asked for a row that they have not.

    On a CPU they do. An NVIDIA GPU notices it later, in whatever waits for it next, and the process
    can never use the GPU again: a wrong cache would end the judgement of all that come after it.
    """

    def look(table: nn.Embedding, inputs: tuple[Tensor, ...]) -> None:
        for ids in inputs:
            if ids.numel() == 0 or ids.device.type == "meta":
                continue
            low, high = ids.aminmax()
            if low < 0 or high >= table.num_embeddings:
                raise IndexError("index out of range in self")

    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.register_forward_pre_hook(look)


@contextlib.contextmanager
def refusing_nan(model: nn.Module) -> Iterator[None]:
    """Inside, the model raises RuntimeError rather than return NaN.

    `torch.multinomial` refuses it on a CPU; on an NVIDIA GPU it ends as a missing row does.
    """

    def look(module: nn.Module, inputs: tuple[Any, ...], output: tuple[Tensor, Any]) -> None:
        if output[0].isnan().any():
            raise RuntimeError("the logits hold NaN")

    handle = model.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def uncached(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Logits (B, T, V) of the plain forward pass."""
    return model(input_ids)[0]


@torch.no_grad()
def in_portions(model: nn.Module, input_ids: Tensor, portions: Sequence[int]) -> Tensor:
    """Logits (B, T, V) with a cache, the tokens fed in `portions`: (4, 1, 1) is 4, then 1, then 1.

    Raises ValueError if the model returns other than one row of logits per token fed in.
    """
    logits, past_kv = [], None
    for portion in input_ids.split(list(portions), dim=1):
        part, past_kv = model(portion, past_kv=past_kv, use_cache=True)
        if part.shape[:2] != portion.shape:
            raise ValueError(
                f"feeding {portion.size(1)} tokens gave logits for {tuple(part.shape[:2])} "
                f"(batch, seq_len), expected {tuple(portion.shape)}: only the new tokens go in, "
                "and only theirs come out"
            )
        logits.append(part)
    return torch.cat(logits, dim=1)


def portionings(seq_len: int) -> Iterator[tuple[int, ...]]:
    """The ways in which `kv_evaluate` feeds `seq_len` tokens.

    At once; every prefill followed by one token at a time (from a sequence of more than 24 tokens
    on: by two single tokens and the rest at once); from an empty cache one by one, in threes, and
    in portions of 1, 2, 3, ... tokens.
    """
    yield (seq_len,)
    for prefill in range(1, seq_len):
        rest = seq_len - prefill
        if seq_len <= ALL_PORTIONS_UP_TO or rest <= 3:
            yield (prefill,) + (1,) * rest
        else:
            yield (prefill, 1, 1, rest - 2)
        if seq_len <= ALL_PORTIONS_UP_TO and rest > 1:
            yield (prefill, rest)
    if seq_len > 3:
        yield (3,) * (seq_len // 3) + ((seq_len % 3,) if seq_len % 3 else ())
        yield tuple(_staircase(seq_len))
    if seq_len > ALL_PORTIONS_UP_TO:
        yield (1,) * seq_len


def _staircase(seq_len: int) -> Iterator[int]:
    step = 1
    while seq_len:
        yield min(step, seq_len)
        seq_len -= min(step, seq_len)
        step += 1


def describe(portions: Sequence[int]) -> str:
    """(4, 1, 1) as "prefill 4, then 1 at a time"."""
    first, rest = portions[0], portions[1:]
    if not rest:
        return f"all {first} at once through an empty cache"
    if set(portions) == {1}:
        return "1 at a time from an empty cache"
    if set(rest) == {1}:
        return f"prefill {first}, then 1 at a time"
    shown = ", ".join(map(str, portions[:5])) + (", ..." if len(portions) > 5 else "")
    return f"in portions of {shown}"


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
        ids = _on_device(case.input_ids, model)
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
    capacity = Result("Filled to max_seq_len", f"1 x {max_seq_len(model)}")
    _judge_capacity(model, _Judge(capacity, tolerance))
    report.others.append(capacity)
    report.others += _judge_offers(model, tolerance)
    return report


def _judge_case(model: nn.Module, case: TestCase, result: Result, tolerance: float) -> None:
    judge = _Judge(result, tolerance)
    ids = _on_device(case.input_ids, model)
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
def alternating(model: nn.Module, *sequences: Tensor) -> list[Tensor]:
    """Logits (B, T, V) of each sequence, decoded in turns: one token of each, each its cache."""
    caches = [None] * len(sequences)
    logits = [[] for _ in sequences]
    for position in range(sequences[0].size(1)):
        for i, ids in enumerate(sequences):
            token = ids[:, position : position + 1]
            part, caches[i] = model(token, past_kv=caches[i], use_cache=True)
            logits[i].append(part)
    return [torch.cat(parts, dim=1) for parts in logits]


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


def _judge_capacity(model: nn.Module, judge: _Judge) -> None:
    limit = max_seq_len(model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocab_size(model), (1, limit + 1), generator=generator)
    ids = _on_device(ids, model)
    portions = (limit - 3, 1, 1, 1) if limit > 3 else (1,) * limit
    try:
        expected = uncached(model, ids[:, :limit])
    except Exception as error:
        judge.result.checks += 1
        return judge.fail(f"{limit} tokens without cache", _explain(error))
    judge.logits(f"{limit} tokens", expected, lambda: in_portions(model, ids[:, :limit], portions))
    judge.refuses(f"token {limit + 1} without cache", lambda: uncached(model, ids))
    judge.refuses(f"token {limit + 1} on a full cache", lambda: in_portions(model, ids, (limit, 1)))
    judge.refuses("2 tokens where 1 has room", lambda: in_portions(model, ids, (limit - 1, 2)))


def _judge_offers(model: nn.Module, tolerance: float) -> Iterator[Result]:
    """A rollback and prompts of different length, where there is such a thing; another device."""
    length = min(12, max_seq_len(model))
    generator = torch.Generator().manual_seed(1)
    ids = _on_device(torch.randint(vocab_size(model), (1, length), generator=generator), model)
    if length >= 4 and can_roll_back(model, ids):
        result = Result("After a rollback", _shape(ids))
        judge, expected = _Judge(result, tolerance), uncached(model, ids)
        for keep in (0, 1, length // 2, length - 1):
            name = f"rolled back to {keep}"
            judge.logits(name, expected, lambda keep=keep: after_rollback(model, ids, keep))
        yield result
    if length >= 4 and hasattr(model, "padded_cache"):
        result = Result("Prompts of different length", f"3 x up to {length}")
        rows = [ids[0], ids[0, length // 2 :], ids[0, length // 3 :]]
        expected = pad_sequence([uncached(model, row[None])[0] for row in rows], batch_first=True)
        judge = _Judge(result, tolerance)
        for steps in sorted({0, 1, length // 2 - 1}):
            name = f"prefill, then {steps} single tokens"
            judge.logits(name, expected, lambda steps=steps: side_by_side(model, rows, steps))
        yield result
    result = Result("On another device", _shape(ids), checks=1)
    try:
        follows_its_device(model, ids)
    except Exception as error:
        _Judge(result, tolerance).fail("cached calls", _explain(error))
    yield result


@torch.no_grad()
def follows_its_device(model: nn.Module, input_ids: Tensor) -> None:
    """Raise RuntimeError if a cached call mixes devices when the model is moved to another one.

    The other device is PyTorch's `meta`, which every machine has: it knows shapes and devices and
    computes nothing. A model that looks at values cannot run there, and is not judged.
    """
    ids = torch.empty_like(input_ids, device="meta")
    tensors = itertools.chain(model.named_parameters(), model.named_buffers())
    moved = {name: tensor.to("meta") for name, tensor in tensors}

    def run(portion: Tensor, **cached: Any) -> tuple[Tensor, Any]:
        return torch.func.functional_call(model, moved, (portion,), cached)

    try:
        run(ids)
    except Exception:
        return
    single = min(3, ids.size(1) - 1)
    try:
        in_portions(run, ids, (ids.size(1) - single,) + (1,) * single)
    except Exception as error:
        if "item()" not in str(error):
            raise RuntimeError(
                f"a cached call fails when the model is moved to another device ({error})"
            ) from None


@torch.no_grad()
def can_roll_back(model: nn.Module, input_ids: Tensor) -> bool:
    """Whether what the model returns as `past_kv` has a method `truncate`."""
    try:
        return hasattr(model(input_ids, use_cache=True)[1], "truncate")
    except Exception:
        return False


@torch.no_grad()
def after_rollback(model: nn.Module, input_ids: Tensor, keep: int) -> Tensor:
    """Logits (B, T, V), one token at a time, where other tokens had gone in after the first `keep`.

    They are guesses that prove wrong: the cache is truncated to `keep` before the rest goes in.
    """
    guesses = (input_ids + 1) % vocab_size(model)
    logits, past_kv = [], None
    for i in range(keep):
        part, past_kv = model(input_ids[:, i : i + 1], past_kv=past_kv, use_cache=True)
        logits.append(part)
    past_kv = model(guesses[:, keep:], past_kv=past_kv, use_cache=True)[1]
    past_kv.truncate(keep)
    for i in range(keep, input_ids.size(1)):
        part, past_kv = model(input_ids[:, i : i + 1], past_kv=past_kv, use_cache=True)
        logits.append(part)
    return torch.cat(logits, dim=1)


@torch.no_grad()
def side_by_side(model: nn.Module, rows: Sequence[Tensor], steps: int) -> Tensor:
    """Logits (B, longest, V) of sequences (T_i,) that go in as one batch, padded on the left.

    All but the last `steps` tokens of each row are the prefill; these then go in one at a time.
    What comes back is padded with zeros on the right: column i is each row's own position i.
    """
    ids, padding = left_pad([row[: len(row) - steps] for row in rows])
    last = torch.stack([row[len(row) - steps :] for row in rows])
    logits, past_kv = [], model.padded_cache(padding)
    for portion in [ids, *last.split(1, dim=1)] if steps else [ids]:
        part, past_kv = model(portion, past_kv=past_kv, use_cache=True)
        logits.append(part)
    found = torch.cat(logits, dim=1)
    own = [found[i, pad:] for i, pad in enumerate(padding.tolist())]
    return pad_sequence(own, batch_first=True)


def max_seq_len(model: nn.Module) -> int:
    return model.pos_embedding.weight.size(0)


def vocab_size(model: nn.Module) -> int:
    return model.token_embedding.weight.size(0)


def _on_device(ids: Tensor, model: nn.Module) -> Tensor:
    return ids.to(next(model.parameters()).device)


def _shape(ids: Tensor) -> str:
    return f"{ids.size(0)} x {ids.size(1)}"


def answers_right(model: nn.Module, story: Story, use_cache: bool = False) -> list[bool]:
    """For each question of a story: would greedy decoding give the true answer, word for word?

    Without a cache the story is run once, true answers included, and each word of an answer must
    be the likeliest after the true words before it, which is the same thing. With a cache, each
    answer is decoded from a cache that holds the story up to its question.
    """
    ids = _on_device(torch.tensor([Tokenizer().encode(story.words)]), model)
    if use_cache:
        return [_decodes(model, ids, question) for question in story.questions]
    likeliest = uncached(model, ids).argmax(-1)
    return [
        bool((likeliest[0, q.start - 1 : q.end - 1] == ids[0, q.start : q.end]).all())
        for q in story.questions
    ]


@torch.no_grad()
def _decodes(model: nn.Module, ids: Tensor, question: Question) -> bool:
    new, past_kv = ids[:, : question.start], None
    for position in range(question.start, question.end):
        logits, past_kv = model(new, past_kv=past_kv, use_cache=True)
        new = logits[:, -1:].argmax(-1)
        if new.item() != ids[0, position].item():
            return False
    return True


def recall(
    model: nn.Module,
    num_stories: int = 700,
    seed: int = 0,
    use_cache: bool = False,
    progress: bool = False,
) -> pd.DataFrame:
    """Recall accuracy by distance, in tokens, on held-out stories drawn with `seed`.

    Returns a table with one row per range of distances: questions (how many) and recall (0 to 1).
    """
    stories = itertools.islice(held_out_stories(seed), num_stories)
    counts = {f"{low}-{high}": [0, 0] for low, high in RANGES}
    for story in tqdm(stories, total=num_stories, desc="recall", disable=not progress):
        for question, right in zip(
            story.questions, answers_right(model, story, use_cache), strict=True
        ):
            for low, high in RANGES:
                if low <= question.distance <= high:
                    counts[f"{low}-{high}"][0] += 1
                    counts[f"{low}-{high}"][1] += right
    table = pd.DataFrame(counts, index=["questions", "right"]).T
    table["recall"] = table["right"] / table["questions"]
    return table.drop(columns="right")
