"""What the check cell of the model with a cache calls (notebook 04, exercise 3)."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..kv_cache import GrowingCache, PreallocatedCache
from ..transformer import DecoderLayer, DecoderOnlyTransformer
from .common import is_stub, raised, verdict
from .elsewhere import follows_its_device
from .judged import difference, judge
from .modules import Use, learning, made
from .n02_dropout import NEVER_RESTS, rests
from .n04_embed import judge_dropout, judge_embed
from .n04_wrong_models import WRONG_FORWARDS
from .seen import Seen, judge_seen, some

CACHES = {"": None, "one of its own": None, "a growing one": GrowingCache}
CACHES["a preallocated one"] = PreallocatedCache
NO_ROW = "index out of range in self"


@dataclass(frozen=True)
class Session:
    """A model that reads a text in chunks, with a cache of some kind or without ("")."""

    chunks: tuple[int, ...]
    cache: str = "one of its own"
    rows: int = 1
    layers: int = 2
    heads: int = 3
    spare: int = 3
    beside: bool = False
    by_name: bool = True
    dtype: torch.dtype = torch.float64
    seed: int = 0

    def __str__(self) -> str:
        kind = "" if self.dtype == torch.float64 else f" in {self.dtype}"
        model = f"A model of {some(self.layers, 'layer')}{kind}, {some(self.rows, 'row')}"
        *before, last = self.chunks
        if not self.cache:
            return f"{model}, without a cache: on {some(last, 'token')},"
        turn = ", in turn with another text" * self.beside
        after = f"after {some(sum(before), 'token')} and {last} more"
        return f"{model}, with a cache ({self.cache}){turn}: {after},"

    def made(self, model_class: Callable[..., nn.Module]) -> nn.Module:
        sizes = {"vocab_size": 13, "d_model": 4 * self.heads, "d_ff": 5, "num_layers": self.layers}
        sizes |= {"max_seq_len": sum(self.chunks) + self.spare, "num_heads": self.heads}
        use = Use("", sizes | {"dropout": 0.5}, (), self.seed, dtype=self.dtype)
        return made(model_class, DecoderOnlyTransformer, use)

    def ids(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randint(13, (self.rows, sum(self.chunks)), generator=generator)


@st.composite
def _sessions(draw: st.DrawFn) -> Session:
    cache = draw(st.sampled_from([*CACHES]))
    chunks = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4 if cache else 1))
    rows, layers, heads = (draw(st.integers(1, 3)) for _ in range(3))
    kinds = draw(st.integers(0, 2)), bool(cache) and draw(st.booleans()), draw(st.booleans())
    dtype, seed = draw(st.sampled_from((torch.float64, torch.float32))), draw(st.integers(0, 9))
    return Session(tuple(chunks), cache, rows, layers, heads, *kinds, dtype, seed)


@torch.no_grad()
def seen_of(model_class: Callable[..., nn.Module], case: Session) -> Seen:
    """The logits of the last chunk, and what the cache holds then."""
    model, ids = case.made(model_class), case.ids()
    if not case.cache:
        return {"the tensor of logits": _run(model, ids, None, False, case.by_name)[0]}
    kind = CACHES[case.cache]
    past_kv, beside = (kind and kind(model, case.rows) for _ in range(2))
    for part in ids.split(case.chunks, dim=1):
        if case.beside:
            beside = _run(model, part.flip(0) // 2, beside, True, case.by_name)[1]
            alone = _run(model, part, None, False, case.by_name)[0]
        own = part.clone()
        logits, past_kv = _run(model, own, past_kv, True, case.by_name)
    seen = {"the length of the cache that comes back": past_kv.length}
    if kind:
        nothing = torch.empty(case.rows, case.heads, 0, 4, dtype=case.dtype)
        for layer in range(case.layers):
            keys, values = past_kv.append(layer, nothing, nothing)
            seen[f"the tensor of keys that layer {layer} of the cache holds"] = keys
            seen[f"the tensor of values that layer {layer} of the cache holds"] = values
    if case.beside:
        seen["the tensor of logits of a run without a cache, before,"] = alone
    return {"input_ids, which was handed in,": own, "the tensor of logits": logits, **seen}


def _run(
    model: nn.Module, ids: Tensor, past_kv: object, use_cache: bool, by_name: bool
) -> tuple[Tensor, object]:
    """What forward returns: logits, and a cache where one is asked for."""
    if by_name:
        found = _asked("forward", model, ids, past_kv=past_kv, use_cache=use_cache)
    else:
        found = _asked("forward", model, ids, *[past_kv, use_cache] * use_cache)
    if not isinstance(found, tuple) or len(found) != 2:
        kind = "nothing" if found is None else f"a {type(found).__name__}"
        raise AssertionError(f"forward returns {kind}, expected two things: logits, past_kv")
    if not isinstance(found[0], Tensor):
        raise AssertionError(
            f"forward returns a {type(found[0]).__name__} first, expected the logits"
        )
    if use_cache and not hasattr(found[1], "append"):
        kind = f"{type(found[1]).__name__} instead" if found[1] is not None else "None"
        raise AssertionError(f"forward returns no cache although use_cache=True: {kind}")
    if not use_cache and found[1] is not None:
        raise AssertionError("forward returns a cache although use_cache=False")
    return found


def _asked(what: str, answer: Callable, *given: object, **by_name: object) -> object:
    try:
        return answer(*given, **by_name)
    except AssertionError:
        raise
    except Exception as error:
        if is_stub(error):
            raise
        why = " (there is no such position, or no such id)" * (NO_ROW in str(error))
        raise AssertionError(f"{what} {raised(error)}{why}") from error


def _built(model_class: type[nn.Module]) -> None:
    """Raise AssertionError unless the class is made of what it is told."""
    for by_name in ({}, {"num_heads": 3, "dropout": 0.25}):
        classes = model_class, DecoderOnlyTransformer
        one, other = (_asked("__init__", c, 7, 6, 5, 2, 9, **by_name) for c in classes)
        for name in ("num_layers", "num_heads", "d_head", "max_seq_len"):
            _same(by_name, name, getattr(one, name), getattr(other, name))
        _same(by_name, "heads of its layers", *map(_heads, (one, other)))
        _same(by_name, "dropout, its own and its layers'", *map(_dropouts, (one, other)))


def _heads(model: nn.Module) -> list[int]:
    return [layer.attention.num_heads for layer in model.layers]


def _dropouts(model: nn.Module) -> list[float]:
    return [part.dropout.p for part in (model, *model.layers)]


def _same(by_name: dict[str, object], what: str, found: object, expected: object) -> None:
    if found != expected:
        given = ", ".join(f"{name}={value}" for name, value in by_name.items()) or "its defaults"
        raise AssertionError(
            f"Made with {given}, the model's {what}: {found!r}, expected {expected!r}. The lines "
            "of __init__ were right as they came."
        )


@torch.no_grad()
def _refuses(model_class: type[nn.Module]) -> None:
    """Raise AssertionError unless what does not fit is a ValueError, and leaves the cache alone."""
    model = Session((3,), rows=2, spare=1).made(model_class)
    ids = torch.zeros(2, 5, dtype=torch.long)
    _, past_kv = model(ids[:, :3], use_cache=True)
    calls = {
        "2 tokens after 3, in room for 4": (ids[:, :2], past_kv, True),
        "5 tokens, in room for 4": (ids, None, False),
        "1 row, with a cache of 2": (ids[:1, :1], past_kv, True),
        "a cache, and use_cache=False": (ids[:, :1], past_kv, False),
        "no tokens": (ids[:, :0], None, True),
    }
    for what, call in calls.items():
        try:
            model(*call)
            how = "is accepted"
        except ValueError:
            continue
        except Exception as error:
            how = raised(error)
        finally:
            left = past_kv.length
        raise AssertionError(
            f"forward on {what}: {how}, expected a ValueError. Is self.check_input(input_ids, "
            "past_kv, use_cache) still its first line?"
        )
    if left != 3:
        raise AssertionError(f"After calls that were refused the cache holds {left} tokens, not 3.")


def _with_the_courses_parts(model_class: type[nn.Module]) -> type[nn.Module]:
    class Model(model_class):
        def __init__(self, d_model: int, d_ff: int, num_heads: int, **others: object):
            super().__init__(d_model=d_model, d_ff=d_ff, num_heads=num_heads, **others)
            layers = (DecoderLayer(d_model, d_ff, num_heads) for _ in self.layers)
            self.layers = nn.ModuleList(layers)

        def new_cache(self, batch_size: int) -> GrowingCache:
            return GrowingCache(self, batch_size)

    return Model


def _others_fault(model_class: type[nn.Module]) -> bool:
    """Whether it is right with the course's layers and cache in it."""
    fixed = _with_the_courses_parts(model_class)
    try:
        for case in TELLING:
            found, expected = (seen_of(c, case) for c in (fixed, DecoderOnlyTransformer))
            if any(difference(found[name], x, x) for name, x in expected.items()):
                return False
    except Exception:
        return False
    return True


def _another_comes_first(error: NotImplementedError, model_class: type[nn.Module]) -> None:
    """Raise AssertionError if it is not in the model that something is still to be written."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    owner = frame.f_locals.get("self")
    if owner is None or isinstance(owner, model_class):
        return
    number = 2 if isinstance(owner, nn.Module) else 1
    what = f"{type(owner).__name__}.{frame.f_code.co_name}"
    raise AssertionError(f"{what} is still to be written. Exercise {number} comes first.") from None


def _on(model: nn.Module, device: torch.device) -> tuple[Tensor, ...]:
    ids = torch.zeros(2, 3, dtype=torch.long, device=device)
    first, past_kv = model(ids, use_cache=True)
    return model(ids)[0], first, model(ids, past_kv, True)[0], model(ids[:, :1], past_kv, True)[0]


TELLING = [
    Session((6,), "", 2, 3),
    *(Session((4, 1, 3)[:n], "a growing one", 2, 3) for n in (1, 2, 3)),
    Session((2, 3), rows=2, layers=3),
    Session((2, 1), "a preallocated one", spare=0, beside=True),
]
FIRST = [
    Session((5,), "", 2),
    *(Session((4, 1, 1)[:n], cache, 2) for n in (1, 2, 3) for cache in [*CACHES][1:3]),
    Session((1100, 70, 1), rows=2, layers=5, dtype=torch.float32),
    Session((2, 5), rows=2),
]
HINTS = {
    "'NoneType' object has no attribute 'length'": "Without a cache past_kv is None, and the text "
    "starts at 0.",
    "not DecoderLayer": "Each layer is told its number: enumerate(self.layers).",
}


@verdict
def check_cached_model(model_class: type[nn.Module]) -> str:
    """Notebook 04, exercise 3. Returns a verdict; raises AssertionError on a wrong model."""
    _built(model_class)
    judge_embed(model_class)
    rests(FIRST[0].made(model_class), FIRST[0].ids(), NEVER_RESTS)
    try:
        judge_seen(
            seen_of,
            model_class,
            DecoderOnlyTransformer,
            _sessions(),
            WRONG_FORWARDS,
            TELLING,
            first=FIRST,
            number=40,
            hints=HINTS,
        )
    except NotImplementedError as error:
        _another_comes_first(error, model_class)
        raise
    except AssertionError as error:
        if not _others_fault(model_class):
            raise
        raise AssertionError(
            f"{error} With the course's layers and cache in place of yours this model is right, so "
            "exercises 1 and 2 come first."
        ) from None
    judge_dropout(model_class)
    _refuses(model_class)
    sizes = {"vocab_size": 7, "d_model": 6, "d_ff": 5, "num_layers": 2, "max_seq_len": 4}
    uses = [Use("DecoderOnlyTransformer", sizes | {"num_heads": 2}, (torch.tensor([[3, 1, 4]]),))]
    judge(
        learning(model_class, DecoderOnlyTransformer, lambda found: found[0]),
        learning(DecoderOnlyTransformer, DecoderOnlyTransformer, lambda found: found[0]),
        st.sampled_from(uses),
        first=uses,
        number=1,
        advice="Is there a `detach`, `.data` or `no_grad` in it? What is before it cannot learn.",
    )
    follows_its_device(_on, "The model with a cache", FIRST[-1].made(model_class).float())
    return (
        "The cached model is right: in chunks of all sizes up to the last position, with its own "
        "cache and with others, two texts in turn, its gradients, its dropout, and on any device. "
        "kv_evaluate comes in notebook 05."
    )
