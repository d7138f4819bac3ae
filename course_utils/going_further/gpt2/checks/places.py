"""What the check cells of tensors that find their place call (chapter 12)."""

import random as numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from ....checks.common import is_stub, raised, verdict
from ....checks.inputs import Call, random
from ....checks.judged import Answer, calling, difference, judge
from .. import checkpoint, model

DTYPES = (torch.float64, torch.float32, torch.float16)
LINEAR = "as in GPT-2. nn.Linear wants (out, in): transpose it"


@st.composite
def _c_attns(draw: st.DrawFn) -> Call:
    d_model, seed = draw(st.integers(1, 5)), draw(st.integers(0, 9))
    dtype = draw(st.sampled_from(DTYPES))
    weight = random(seed, d_model, 3 * d_model, dtype=dtype)
    return Call("split_c_attn", (weight, random(seed + 10, 3 * d_model, dtype=dtype)))


def _splitting(split_c_attn: Callable) -> Answer:
    """What it gives, by names. Raises AssertionError, with the reason, where a part is another."""

    def answer(call: Call) -> dict[str, object]:
        found = calling(split_c_attn)(call)
        _three_pairs(found)
        expected = _named(model.split_c_attn(*call.args))
        for name, part in _named(found).items():
            if difference(part, expected[name], expected[name]):
                _misplaced(name, part, expected, *call.args)
        return _named(found)

    return answer


def _named(pairs: Sequence) -> dict[str, object]:
    parts = {}
    for name, (weight, bias) in zip("qkv", pairs, strict=True):
        parts[f"the weight of W_{name}"], parts[f"the bias of W_{name}"] = weight, bias
    return parts


def _three_pairs(found: object) -> None:
    """Raise AssertionError unless it is three pairs of tensors."""
    if not isinstance(found, Sequence) or len(found) != 3:
        count = f"{len(found)} of them" if isinstance(found, Sequence) else type(found).__name__
        raise AssertionError(f"gives {count}, expected a list of three pairs, of W_q, W_k, W_v")
    for pair in found:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise AssertionError(
                "gives three things, and each of them must be a pair: weight, bias"
            )


def _misplaced(
    name: str, part: object, expected: dict[str, Tensor], weight: Tensor, bias: Tensor
) -> None:
    """Raise AssertionError if the part is another part of c_attn, or turned, or mixed."""
    if not isinstance(part, Tensor):
        return
    if _same(part, _turned(expected[name])):
        raise AssertionError(
            f"gives {name} as (in, out), {LINEAR}. It has the right shape either way, which is the "
            "trap"
        )
    for other, tensor in expected.items():
        if other != name and (_same(part, tensor) or _same(part, _turned(tensor))):
            turned = f", and as (in, out), {LINEAR}" * (not _same(part, tensor))
            order = "q, k, v" if other[-1] != name[-1] else "weight, bias, in each pair"
            raise AssertionError(f"gives {other} as {name}{turned}. The order is {order}")
    d_model = len(weight)
    thirds = weight.view(d_model, d_model, 3).unbind(2), weight.view(3, d_model, d_model).unbind()
    if any(_same(part, x) or _same(part, _turned(x)) for third in thirds for x in third):
        raise AssertionError(
            f"gives a mixture of all three as {name}. In each row of c_attn all of q comes "
            "first, then all of k, then all of v: cut along dim=1"
        )
    if any(_same(part, x) for x in bias.view(d_model, 3).unbind(1)):
        raise AssertionError(f"gives a mixture of all three as {name}. All of q's come first")


def _turned(x: Tensor) -> Tensor:
    return x.transpose(0, -1)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@verdict
def check_split_c_attn(split_c_attn: Callable[[Tensor, Tensor], Sequence]) -> str:
    """Chapter 12, exercise 2. Returns a verdict; raises AssertionError on a wrong split."""
    easy = torch.arange(1.0, 13).view(2, 6), torch.tensor([0.5, 1.5, 2.5, 3.5, 4.5, 5.5])
    many = random(0, 130, 390), random(1, 390)
    judge(
        _splitting(split_c_attn),
        _splitting(model.split_c_attn),
        _c_attns(),
        first=[Call("split_c_attn", easy), Call("split_c_attn", many)],
        number=60,
    )
    return "split_c_attn is right: q, k, v in this order, transposed, each with its bias."


@dataclass(frozen=True)
class _Checkpoint:
    """GPT-2's tensors of some sizes, with random numbers, in an order of their names."""

    num_layers: int
    tied: bool = True
    d_model: int = 4
    d_ff: int = 10
    vocab_size: int = 9
    max_seq_len: int = 5
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __str__(self) -> str:
        head = "no lm_head.weight" if self.tied else "an lm_head.weight"
        sizes = f"V={self.vocab_size}, D={self.d_model}, F={self.d_ff}, S={self.max_seq_len}"
        dtype = f", {self.dtype}" * (self.dtype != torch.float32)
        return f"translate(tensors, {self.num_layers}), for {sizes}, {head}{dtype}:"

    def tensors(self) -> dict[str, Tensor]:
        sizes = (self.vocab_size, self.d_model, self.d_ff, self.num_layers, self.max_seq_len)
        shapes = checkpoint.expected_shapes(*sizes)
        if not self.tied:
            shapes["lm_head.weight"] = shapes["wte.weight"]
        names = sorted(shapes)
        numbers.Random(self.seed).shuffle(names)
        return {
            name: random(1000 * self.seed + i, *shapes[name], dtype=self.dtype)
            for i, name in enumerate(names)
        }


CHECKPOINTS = st.builds(
    _Checkpoint,
    st.sampled_from((1, 2, 3, 13)),
    st.booleans(),
    st.integers(2, 4),
    st.integers(2, 6),
    st.integers(2, 5),
    st.integers(2, 5),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)


def _translating(translate: Callable) -> Answer:
    """The translated tensors. Raises AssertionError, with the reason, where one is another."""

    def answer(case: _Checkpoint) -> None:
        tensors, given = case.tensors(), case.tensors()
        try:
            found = translate(given, case.num_layers)
        except Exception as error:
            if is_stub(error):
                raise
            raise AssertionError(raised(error)) from error
        _unchanged(tensors, given)
        _judge_names(found, model.translate(tensors, case.num_layers), case)

    return answer


def _unchanged(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    if before.keys() != after.keys():
        raise AssertionError("the dict that came in was changed: fill a new one")
    for name, tensor in before.items():
        if not torch.equal(tensor, after[name]):
            raise AssertionError(f"{name} that came in was changed, in the dict or in place")


def _judge_names(found: object, expected: dict[str, Tensor], case: _Checkpoint) -> None:
    if not isinstance(found, dict):
        raise AssertionError(
            f"expected a dict from the course's names to tensors, found {type(found).__name__}"
        )
    missing, extra = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or extra:
        parts = [f"missing: {checkpoint.few(missing)}"] * bool(missing)
        parts += [f"not names of the course's model: {checkpoint.few(extra)}"] * bool(extra)
        raise AssertionError("; ".join(parts))
    for name, tensor in expected.items():
        if how := difference(found[name], tensor, tensor):
            raise AssertionError(_why(name, found[name], expected, case.tied) or f"{name} {how}")


def _why(name: str, found: object, expected: dict[str, Tensor], tied: bool) -> str:
    """The likeliest reason why `found` is not the tensor of that name, if there is one."""
    if not isinstance(found, Tensor):
        return ""
    right = expected[name]
    if _same(found, _turned(right)) and "layers." in name:
        once = ""
        if name.endswith(("W_q.weight", "W_k.weight", "W_v.weight")):
            once = " (once: `split_c_attn` has done so)"
        return (
            f"{name} is (in, out), {LINEAR}{once}. A square matrix loads either way, without an "
            "error"
        )
    if _same(found, _turned(right)):
        return f"{name} is turned. Embeddings and the head stay as they are in GPT-2"
    embedding = expected["token_embedding.weight"]
    if name == "output_projection.weight" and not tied and _same(found, embedding):
        return f"{name} is the embedding, and the checkpoint has an lm_head.weight (use it)"
    for other, tensor in expected.items():
        if other != name and _same(found, tensor):
            return f"{name} holds what belongs to {other}"
    return ""


@verdict
def check_translate(translate: Callable[[dict[str, Tensor], int], dict[str, Tensor]]) -> str:
    """Chapter 12, exercise 4. Returns a verdict; raises AssertionError on a wrong state dict."""
    judge(
        _translating(translate),
        _translating(model.translate),
        CHECKPOINTS,
        first=[_Checkpoint(2), _Checkpoint(11, tied=False)],
        number=25,
    )
    return "translate is right: every tensor under its name, every matrix as nn.Linear keeps it."
