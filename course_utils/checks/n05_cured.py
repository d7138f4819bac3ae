"""What the check cells of the patients call (notebook 05, exercises 1 to 4)."""

import copy
import re
from collections.abc import Iterable, Iterator

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..cache_bugs import Diagnosis, diagnose
from ..cache_bugs.diagnosis import UNKNOWN
from ..evaluation import (
    Generate,
    NotJudged,
    Report,
    Result,
    Script,
    copied,
    feeds,
    lane_in,
    precise_copy,
    uncached,
    words,
)
from ..evaluation import follows_its_device as cache_follows
from ..evaluation import systematic as uses
from ..evaluation.trial import Trial
from ..transformer import DecoderOnlyTransformer
from .common import is_stub, load_weights, raised, verdict
from .elsewhere import follows_its_device
from .inputs import Call, random
from .judged import Mistakes, calling, drawn, gradients, judge, named
from .n05_first_look import D_HEAD, FAILED, HEADS, NOTHING, first_look, many

VOCABULARY, ROOM, LONG, CACHES = 20, 64, 300, 300
DRAWN, MOST_TOKENS, MOST_GENERATED = 12, 80, 12
PARTS = (
    "No wrong cache of",
    "Identical to `",
    "What it leads to: ",
    "Where to look: ",
    "The nearest use that is right: ",
    "The output of layer ",
    "Still right: ",
)
CARD = "The patient is to be cured, not replaced: write the part that the card asks for."


@verdict
def check_cured(model_class: type[nn.Module]) -> str:
    """Notebook 05, exercises 1 to 4. Returns a verdict, or raises AssertionError: a diagnosis."""
    name = model_class.__name__
    reference, model = _built(DecoderOnlyTransformer), _built(model_class)
    part = _part(copied(model))
    if not part:
        raise AssertionError(f"{name} is the healthy model under the patient's name. {CARD}")
    look = first_look(copied(model), part)
    ill = f"{name} is still ill. {look}"
    _same_without_cache(model, reference, part, ill)
    report = _examined(model)
    if not report.all_passed:
        known = FAILED in look or NOTHING in look
        more = "" if known else _by_lines(diagnose(report, reference), bool(look))
        raise AssertionError(f"{ill.strip()}{more}")
    if part == "attend":
        _judge_attend(model, ill)
    if part == "new_cache":
        _kept_apart(model, ill)
    for room, scripts in ((ROOM, uses.splits(1, 4)), (LONG, [feeds(LONG - 3, 1, 2)])):
        one = _built(model_class, 1, room)
        _same_without_cache(one, _built(DecoderOnlyTransformer, 1, room), part, ill, (room,))
        lane = lane_in(one)
        for script in scripts:
            found = lane.play(script)
            if found.problem is not None:
                where = f"In a model of one layer and {room} positions"
                raise AssertionError(f"{ill}{where}, {words(script)}: {found}.")
    return f"{name} is healthy: the cache gives the uncached logits."


def _by_lines(diagnosis: Diagnosis, explained: bool) -> str:
    """A diagnosis below what was said before, each part of it on a line of its own."""
    said = str(diagnosis).replace(f" {UNKNOWN}", "") if explained else str(diagnosis)
    for part in PARTS:
        said = said.replace(f" {part}", f"\n{part}")
    return f"\n{said}"


@torch.no_grad()
def _kept_apart(model: nn.Module, ill: str) -> None:
    """Raise AssertionError unless a cache is still right when many others have been made."""
    model, tolerance = precise_copy(model)
    ids = torch.arange(4)[None]
    right = uncached(model, ids)[:, -1]
    _, first = model(ids[:, :3], past_kv=model.new_cache(1), use_cache=True)
    others = [model.new_cache(1) for _ in range(CACHES)]
    for cache, new, which in ((others[-1], ids, "the last"), (first, ids[:, 3:], "the first")):
        logits, _ = model(new, past_kv=cache, use_cache=True)
        if not torch.allclose(logits[:, -1], right, 0, tolerance):
            raise AssertionError(
                f"{ill}Of {CACHES + 1} caches that are in use at once, {which} is wrong. Each call "
                "of `new_cache` has to make another one."
            )


def _built(model_class: type[nn.Module], num_layers: int = 3, room: int = ROOM) -> nn.Module:
    """A small model of that class; those of all classes have the same random weights."""
    sizes = (VOCABULARY, HEADS * D_HEAD, 24, num_layers, room)
    torch.manual_seed(0)
    reference = DecoderOnlyTransformer(*sizes, num_heads=HEADS, dropout=0.0)
    with torch.no_grad():
        reference.output_projection.weight.mul_(4)
    try:
        model = model_class(*sizes, num_heads=HEADS, dropout=0.0)
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(f"{model_class.__name__} cannot be made: {raised(error)}.") from error
    load_weights(model, reference)
    return model.eval()


def _part(model: nn.Module) -> str:
    """What the student has written: `attend`, `append`, `new_cache`, or nothing."""
    attention = type(model.layers[0].attention)
    written = _own(attention) and "attend" in vars(attention)
    if written or _own(attention.attend) or _own(attention.forward):
        return "attend"
    try:
        cache = model.new_cache(1)
    except NotImplementedError:
        raise
    except Exception:
        return "new_cache"
    if _own(getattr(type(cache), "append", None)):
        return "append"
    by_cache_class = hasattr(model, "cache_class")
    return "new_cache" if _own(type(model).new_cache) and not by_cache_class else ""


def _own(function: object) -> bool:
    """Whether a function is written by somebody else than the course."""
    return bool(function) and not getattr(function, "__module__", "").startswith("course_utils.")


def _same_without_cache(
    model: nn.Module, reference: nn.Module, part: str, ill: str, at: Iterable[int] = (9, ROOM, 9)
) -> None:
    """Raise AssertionError if the model is wrong without its cache, once or later."""
    (model, tolerance), (reference, _) = map(precise_copy, (model, reference))
    ids = torch.randint(VOCABULARY, (2, LONG), generator=torch.Generator().manual_seed(0))
    for length in at:
        try:
            found = uncached(model, ids[:, :length])
        except Exception as error:
            if is_stub(error):
                raise
            known = FAILED in ill or NOTHING in ill
            said = ill.strip() if known else f"{ill}Without a cache it {raised(error)}."
            raise AssertionError(said) from error
        if not torch.allclose(found, uncached(reference, ids[:, :length]), 0, tolerance):
            if part == "attend":
                _judge_attend(model, ill)
            where = f"with {length} tokens, " * (length > ROOM) + "where all tokens go in at once"
            raise AssertionError(
                f"{ill}It is wrong without a cache already, {where} and there are as many queries "
                "as keys."
            )


def _examined(model: nn.Module) -> Report:
    """A report like that of `kv_evaluate`, on what a cure can get wrong, up to what fails first."""
    trial = Trial(model, thorough=False)
    report = Report("", trial.main.tolerance, [], trial=trial)
    for result in _subjects(trial):
        report.others.append(result)
        if report.problems:
            break
    report.smallest = trial.smallest()
    return report


def _subjects(trial: Trial) -> Iterator[Result]:
    for name, scripts in _scripts(trial):
        yield trial.judge(Result(name, ""), scripts)
    yield trial.draw(Result("Drawn scripts", ""), trial.main, DRAWN, 0, MOST_TOKENS)
    for dtype in (torch.float32, torch.bfloat16):
        result = Result(f"In {str(dtype).removeprefix('torch.')}", "")
        try:
            lane = trial.lane_in(dtype)
        except Exception as error:
            result.not_judged = f"without a cache it fails there too ({type(error).__name__})"
        else:
            samples = [feeds(5, 1, 1, 4, rows=2), feeds(1, 1, 1), feeds(40, 1, 3)]
            trial.judge(result, samples, lane)
        yield result
    elsewhere = Result("On another device", "", checks=1)
    try:
        cache_follows(trial.main.fresh())
    except NotJudged as reason:
        elsewhere.not_judged = str(reason)
    except RuntimeError as error:
        trial.mixes_devices = str(error)
        elsewhere.problems.append(f"{error}")
    yield elsewhere


def _scripts(trial: Trial) -> Iterator[tuple[str, Iterable[Script]]]:
    """What is tried by subject; the simplest first."""
    room, offers = trial.main.room, trial.offers
    yield "Fed in all ways", [*uses.splits(1, 6), *uses.splits(2, 5)]
    company = [*uses.in_company(1, 5).values(), *uses.in_company(2, 4).values()]
    yield "Beside other texts", company
    yield "Many texts and rows", uses.alike(room)
    if offers.generate:
        written = (
            script
            for script in uses.generations(room)
            if sum(step.new for step in script if isinstance(step, Generate)) <= MOST_GENERATED
        )
        yield "Generations", written
    if offers.truncate:
        yield "After a rollback", uses.rolled_back(room)
    if offers.reorder:
        yield "Rows reordered", list(uses.reordered(room, offers.truncate))[:6]
    yield "Filled", uses.filled(room, offers.generate).values()
    eights = range(8, room - 2, 8)
    around = [feeds(length + n, 1, 1) for length in eights for n in (-1, 0, 1)]
    across = [feeds(length - 1, 2, 1) for length in eights]
    yield "All lengths", [*around, *across, feeds(*uses.staircase(room)), feeds(*(1,) * room)]


class _Attended(Call):
    def __str__(self) -> str:
        q, k, _ = self.args
        return f"`attend`, with {many(q.size(-2), 'query')} on {many(k.size(-2), 'key')},"


@st.composite
def _attended(draw: st.DrawFn, scales: tuple[int, ...]) -> Call:
    """Any number of queries on as many keys or more; the scores larger by one of the scales."""
    queries, stored = draw(st.integers(1, 5)), draw(st.sampled_from((0, 1, 2, 3, 5, 31, 60)))
    stored = min(stored, ROOM - queries)
    batch, seed, scale = draw(st.integers(1, 4)), draw(st.integers(0, 9)), st.sampled_from(scales)
    q = random(seed, batch, HEADS, queries, D_HEAD) * draw(scale)
    k, v = random(seed + 10, 2, batch, HEADS, queries + stored, D_HEAD)
    return _Attended("attend", (q, k, v))


def _judge_attend(model: nn.Module, ill: str) -> None:
    """Raise AssertionError unless `attend` is right: large scores, gradients, another device."""
    attention, right = model.layers[0].attention, MultiHeadAttention(HEADS * D_HEAD, HEADS)
    if _own(type(attention).forward):
        return
    cases = drawn(_attended((1,)), 8)
    if mistake := named(calling(attention.attend), _exchanged(right), cases):
        raise AssertionError(f"{ill}{mistake}")
    stops = "Is there a `detach` or a `no_grad` in it?"
    tries = (
        (calling, _attended((1, 30, 10_000, 10**12)), 30, ""),
        (gradients, _attended((1,)), 5, stops),
    )
    try:
        for how, many, number, advice in tries:
            judge(how(attention.attend), how(right.attend), many, number=number, advice=advice)
        _rests_in_training(attention, max(cases, key=lambda call: call.args[1].numel()))
        follows_its_device(_attend_there, "`attend`", attention)
    except AssertionError as error:
        said = re.sub(r"(holds NaN .*?\)), expected [^a-z]*\.", r"\1.", str(error))
        raise AssertionError(f"{ill}{said}") from None


def _rests_in_training(attention: nn.Module, call: Call) -> None:
    one, other = (copy.deepcopy(attention).train().attend(*call.args) for _ in range(2))
    if not torch.equal(one, other):
        raise AssertionError(
            "In training, `attend` gives something else each time. Nothing is random in it."
        )


def _exchanged(right: MultiHeadAttention) -> Mistakes:
    """Attention that is given one tensor in the place of another."""
    return [
        (calling(lambda q, k, v: right.attend(q, v, k)), "In `attend` k and v are exchanged."),
        (
            calling(lambda q, k, v: right.attend(q, k, k)),
            "`attend` adds up keys; expected: values.",
        ),
        (
            calling(lambda q, k, v: right.attend(q, v, v)),
            "`attend` compares the queries with values; expected: with keys.",
        ),
    ]


def _attend_there(attention: nn.Module, device: torch.device) -> Tensor:
    q, k = (torch.empty(1, HEADS, n, D_HEAD, device=device) for n in (2, 5))
    return attention.attend(q, k, k)
