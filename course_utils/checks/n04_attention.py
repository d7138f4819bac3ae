"""What the check cell of attention with a cache calls (notebook 04, exercise 2)."""

import traceback
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..attention import MultiHeadAttention
from ..kv_cache import GrowingCache, PreallocatedCache
from .common import is_stub, raised, verdict
from .elsewhere import follows_its_device
from .inputs import random
from .judged import difference, judge
from .modules import Use, learning, made
from .n01_heads import NOTHING_RANDOM
from .n02_dropout import rests
from .n04_caches import model_for
from .n04_wrong_attention import WRONG_ATTENTION
from .seen import Seen, judge_seen, some

LAYERS = 5
SPARE = 2  # places in a cache that stay empty
HANDED = "It takes the layer's number first: cache.append(layer, k, v)."
SCALES = (1.0, 1.0, 30.0, 1e-3)


@dataclass(frozen=True)
class Attending:
    """Attention on chunks of a text, as one layer of five, with a cache or without one."""

    chunks: tuple[int, ...]
    layer: int | None = 1
    rows: int = 1
    heads: int = 3
    d_head: int = 4
    by_name: bool = False
    beside: bool = False
    dtype: torch.dtype = torch.float64
    scale: float = 1.0
    seed: int = 0
    cache_class: type = GrowingCache

    def __str__(self) -> str:
        kind = "" if self.dtype == torch.float64 else f" of {self.dtype}"
        rows = f"{some(self.rows, 'row')}{kind}"
        name = f"MultiHeadAttention({self.heads * self.d_head}, {self.heads})"
        *before, last = self.chunks
        if self.layer is None:
            return f"{name} without a cache, {rows}: on {some(last, 'token')},"
        turn = " in turn with another one" * self.beside
        cache = f"as layer {self.layer} with a {self.cache_class.__name__}{turn}"
        return f"{name} {cache}, {rows}: after {some(sum(before), 'token')} and {last} more,"


@st.composite
def _uses(draw: st.DrawFn) -> Attending:
    layer = draw(st.sampled_from((None, *range(LAYERS))))
    most = 1 if layer is None else 4
    chunks = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=most)))
    rows, heads, d_head = (draw(st.integers(1, 3)) for _ in range(3))
    by_name, beside = draw(st.booleans()), layer is not None and draw(st.booleans())
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    scale = draw(st.sampled_from(SCALES)) if dtype == torch.float64 else 1.0
    kind = draw(st.sampled_from((GrowingCache, PreallocatedCache)))
    kinds = by_name, beside, dtype, scale, draw(st.integers(0, 9)), kind
    return Attending(chunks, layer, rows, heads, d_head, *kinds)


class _Watched:
    """A cache that complains when what it is given cannot be keys and values of a layer."""

    def __init__(self, case: Attending):
        sizes = LAYERS, case.heads, case.d_head, sum(case.chunks) + SPARE, case.dtype
        self.case, self.cache = case, case.cache_class(model_for(*sizes), case.rows)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        for name, x in (("k", k), ("v", v)):
            if not isinstance(x, Tensor):
                raise AssertionError(f"append is handed {x!r} as {name}. {HANDED}")
            if x.shape != (self.case.rows, self.case.heads, x.size(-2), self.case.d_head):
                raise AssertionError(
                    f"append is handed a {name} of shape {tuple(x.shape)}, expected (B, H, Q, d): "
                    "split the heads before"
                )
        if layer not in range(LAYERS):
            raise AssertionError(f"append is told that this is layer {layer!r}")
        return self.cache.append(layer, k, v)

    def __getattr__(self, name: str) -> object:
        return getattr(self.cache, name)

    def fill(self, layers: range, number: int) -> None:
        """What the other layers of a model do."""
        for layer in layers:
            shape = 2, self.case.rows, self.case.heads, number, self.case.d_head
            self.cache.append(layer, *random(layer, *shape).to(self.case.dtype))

    def held(self, layer: int) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer: what comes back when nothing is appended."""
        shape = self.case.rows, self.case.heads, 0, self.case.d_head
        nothing = torch.empty(shape, dtype=self.case.dtype)
        return self.cache.append(layer, nothing, nothing)


def seen_of(attention_class: type[nn.Module], case: Attending) -> Seen:
    """The last output, and what the cache holds then."""
    d_model = case.heads * case.d_head
    sizes = {"d_model": d_model, "num_heads": case.heads}
    use = Use("", sizes, (), case.seed, dtype=case.dtype)
    module = made(attention_class, MultiHeadAttention, use)
    x = random(case.seed + 100, case.rows, sum(case.chunks), d_model).to(case.dtype) * case.scale
    if case.layer is None:
        own = x.clone()
        given = {"cache": None} if case.by_name else {}
        output = _called(module, own, **given)
        return {"x, which was handed in,": own, "the output": output}
    cache, beside = _Watched(case), _Watched(case)
    for part in x.split(case.chunks, dim=1):
        if case.beside:
            _attended(module, -part, beside)
        own = part.clone()
        output = _attended(module, own, cache)
    seen = {"x, which was handed in,": own}
    for layer in range(LAYERS):
        keys, values = cache.held(layer)
        seen[f"the tensor of keys that layer {layer} of the cache holds"] = keys
        seen[f"the tensor of values that layer {layer} of the cache holds"] = values
    alone = _called(module, own)
    return seen | {"the output": output, "the output without a cache, afterwards,": alone}


def _attended(module: nn.Module, x: Tensor, cache: _Watched) -> object:
    """The output for x, the layers before and after it having appended as those of a model do."""
    layer = cache.case.layer
    cache.fill(range(layer), x.size(1))
    if cache.case.by_name:
        output = _called(module, x, cache=cache, layer=layer)
    elif layer == 0:
        output = _called(module, x, cache)
    else:
        output = _called(module, x, cache, layer)
    cache.fill(range(layer + 1, LAYERS), x.size(1))
    return output


def _called(module: nn.Module, *given: object, **by_name: object) -> object:
    try:
        return module(*given, **by_name)
    except AssertionError:
        raise
    except Exception as error:
        if is_stub(error):
            raise
        said = raised(error).replace(_Watched.__name__, GrowingCache.__name__)
        raise AssertionError(f"forward {said}{_order(module, error)}") from error


def _order(module: nn.Module, error: Exception) -> str:
    """Advice if it is one of the module's matrices that does not fit what it is given."""
    run = [id(frame.f_locals.get("self")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    name = next((name for name, part in module.named_children() if id(part) in run), "")
    if "mat1 and mat2 shapes" not in str(error) or not name:
        return ""
    if name == "W_o":
        return ". self.merge_heads comes before W_o"
    return f". {name} comes before the heads are split: self.split_heads(self.{name}(x))"


TELLING = [
    Attending((6,), None, 2),
    *(Attending((4, 1, 3)[:n], 1, 2) for n in (1, 2, 3)),
    Attending((2, 3), 0, 2),
    Attending((2, 3), 2, 2),
    Attending((2, 1), 1, 2, beside=True),
]
LARGE = Attending((1100, 70, 1), 4, 5, by_name=True, dtype=torch.float32)
HINTS = {
    "which was handed in": "Work on a new tensor: what comes in belongs to the caller.",
    "'NoneType' object has no attribute 'append'": "Without a cache, cache is None: ask `if cache "
    "is not None`.",
    "append() missing": HANDED,
}
FIRST = [
    Attending((7,), None, 2),
    *(Attending((4, 1, 1)[:n], layer, 2) for n in (1, 2, 3) for layer in (0, 1)),
    Attending((2, 5), 1, 2),
]


@verdict
def check_cached_attention(attention_class: type[nn.Module], cache_class: type) -> str:
    """Notebook 04, exercise 2. Returns a verdict; raises AssertionError on wrong attention."""
    use = Use("", {"d_model": 6, "num_heads": 2}, (), training=True)
    rests(made(attention_class, MultiHeadAttention, use), random(0, 2, 4, 6), NOTHING_RANDOM)
    judge_seen(
        seen_of,
        attention_class,
        MultiHeadAttention,
        _uses(),
        WRONG_ATTENTION,
        TELLING,
        first=FIRST,
        number=40,
        hints=HINTS,
    )
    judge_seen(
        seen_of,
        attention_class,
        MultiHeadAttention,
        st.just(LARGE),
        (),
        (),
        first=[LARGE],
        number=1,
    )
    x, name, sizes = random(0, 2, 4, 6), "MultiHeadAttention", {"d_model": 6, "num_heads": 2}
    uses = [Use(name, sizes, (x, *more)) for more in ((), (_Cached(0), 0), (_Cached(3), 0))]
    judge(
        learning(attention_class, MultiHeadAttention),
        learning(MultiHeadAttention, MultiHeadAttention),
        st.sampled_from(uses),
        first=uses,
        number=len(uses),
        advice="Is there a `detach`, `.data` or `no_grad` in it? What is before it cannot learn.",
    )
    follows_its_device(_on, "MultiHeadAttention with a cache", attention_class(12, 3))
    _with_own_cache(attention_class, cache_class)
    return (
        "MultiHeadAttention is right: without a cache and with one, in chunks of all sizes, as "
        "each of five layers, with two caches in turn, its gradients, and on any device."
    )


class _Cached(GrowingCache):
    """A cache of two rows, two heads and d = 3, with so many positions in it."""

    def __init__(self, number: int):
        super().__init__(model_for(1, 2, 3, 9, torch.float64), 2)
        self.append(0, *random(0, 2, 2, 2, number, 3))

    def __repr__(self) -> str:
        return f"<a cache of {some(self.length, 'position')}>"


def _on(module: nn.Module, device: torch.device) -> tuple[Tensor, ...]:
    sizes = {"num_layers": 2, "num_heads": 3, "d_head": 4, "max_seq_len": 9}
    cache = GrowingCache(SimpleNamespace(**sizes, dtype=torch.float32, device=device), 2)
    x = torch.empty(2, 4, 12, device=device)
    return module(x), module(x, cache, 0), module(x[:, :1], cache, 0), module(x, cache, 0)


def _with_own_cache(attention_class: type[nn.Module], cache_class: type) -> None:
    """Raise AssertionError if it is the answer to exercise 1 that is wrong."""
    for case in TELLING[1:]:
        own = replace(case, cache_class=cache_class)
        try:
            found, right = seen_of(attention_class, own), seen_of(MultiHeadAttention, case)
            hows = (f"{n} {how}" for n, x in right.items() if (how := difference(found[n], x, x)))
            how = next(hows, "")
        except NotImplementedError:
            how = "it is still to be written"
        except Exception as error:
            how = str(error)
        if how:
            raise AssertionError(
                f"MultiHeadAttention is right with the course's caches. With your "
                f"{cache_class.__name__} it is not: {how}. Exercise 1 comes first."
            )
