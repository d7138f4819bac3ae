"""What the check cell of many heads calls (notebook 01)."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..attention import MultiHeadAttention, attention, causal_mask
from .again import LONG, right_again
from .common import verdict
from .elsewhere import follows_its_device
from .inputs import OFFSETS, SCALES, every_second_number, in_one_piece, random, tensors
from .judged import DETACHED, judge
from .modules import Use, learning, made, using
from .n02_dropout import rests

NAME = "MultiHeadAttention"
NOTHING_RANDOM = (
    "In training, MultiHeadAttention gives something else each time. Nothing is random in it; "
    "dropout is for the layer around it, in notebook 02."
)
X_LAYOUTS = (in_one_piece, every_second_number)


@st.composite
def uses(draw: st.DrawFn, method: str = "") -> Use:
    """Heads of all sizes, and sequences of up to five tokens; some with mixed rows."""
    batch, seq_len = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    num_heads, d_head = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    sizes = {"d_model": num_heads * d_head, "num_heads": num_heads}
    shape, seed = (batch, seq_len, sizes["d_model"]), draw(st.integers(0, 9))
    dtype = draw(st.sampled_from((torch.float64, torch.float32)))
    x = random(seed, *shape, dtype=dtype)
    if draw(st.booleans()) and dtype == torch.float64:
        x = draw(tensors(shape, (dtype,), SCALES, OFFSETS[:-2], X_LAYOUTS))
    if method == "merge_heads":
        x = MultiHeadAttention(**sizes).split_heads(x.contiguous())
        x = x.contiguous() if draw(st.booleans()) else x  # as attention returns its heads
    if method == "split_heads":
        x = x.contiguous()
    if draw(st.booleans()) and num_heads == 1:
        del sizes["num_heads"]
    name = f"{NAME}{method and '.' + method}"
    return Use(name, sizes, (x,), seed, dtype=dtype)


class _Wrong(MultiHeadAttention):
    """The course's, with what may go wrong in `forward` as attributes."""

    matrices = ("W_q", "W_k", "W_v")
    last = "W_o"
    masked = split = merged = True
    scaled_twice = adds_x = False

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (getattr(self, name)(x) if name else x for name in self.matrices)
        if self.split:
            q, k, v = map(self.split_heads, (q, k, v))
        if self.scaled_twice:
            q = q * q.size(-1) ** -0.5
        found = attention(q, k, v, self.mask(x.size(1)) if self.masked else None)
        found = self.merge_heads(found) if self.split and self.merged else found.reshape(x.shape)
        found = getattr(self, self.last)(found) if self.last else found
        return x + found if self.adds_x else found

    def mask(self, seq_len: int) -> Tensor:
        return causal_mask(seq_len, seq_len)


def _with(**attributes: object) -> type[nn.Module]:
    return type("Wrong", (_Wrong,), attributes)


def _from(*matrices: str) -> type[nn.Module]:
    return _with(matrices=matrices)


class _ViewedStraight(_Wrong):
    def split_heads(self, x: Tensor) -> Tensor:
        batch, seq_len, d_model = x.shape
        return x.view(batch, self.num_heads, seq_len, d_model // self.num_heads)

    def merge_heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), x.size(2), -1)


class _EveryHth(_Wrong):
    def split_heads(self, x: Tensor) -> Tensor:
        batch, seq_len, d_model = x.shape
        return x.view(batch, seq_len, d_model // self.num_heads, -1).permute(0, 3, 1, 2)

    def merge_heads(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(x.size(0), x.size(2), -1)


class _HeadsLast(_Wrong):
    def split_heads(self, x: Tensor) -> Tensor:
        return super().split_heads(x).transpose(1, 2)


SPLITS = [
    (
        _ViewedStraight,
        "The shape is right, but the numbers are shuffled among positions and heads. First view "
        "as (batch, seq_len, heads, d_head), then transpose.",
    ),
    (_EveryHth, "Head 0 takes the *first* d numbers of each token, not every H-th one."),
    (_HeadsLast, "The heads come before the positions, (B, H, T, d): transpose(1, 2) is missing."),
]
MERGES = [
    (_ViewedStraight, "The numbers are shuffled: transpose(1, 2) has to come before reshape."),
    (_EveryHth, "The d numbers of head 0 come first, then those of head 1."),
]
FORWARDS = [
    (_with(last=None), "W_o is missing: it goes last, on the merged heads."),
    (_with(last="W_q"), "W_q comes last, where W_o should."),
    (_with(masked=False), "Nothing is masked: give attention a causal mask."),
    (
        _with(mask=lambda self, seq_len: causal_mask(seq_len, seq_len).T),
        "The mask hides the past, and should hide the future. Its rows are the queries.",
    ),
    (_with(split=False), "The heads are not split: all D numbers go through attention as one."),
    (_with(merged=False), "The heads are put together by a reshape alone: use merge_heads."),
    (_with(scaled_twice=True), "The scores are divided by sqrt(d) twice: attention does so."),
    (_with(adds_x=True), "x is added to the result. Nothing is added here: return W_o's output."),
    (_from("W_q", "W_k", ""), "x itself is used for the values: they have W_v."),
    (_from("", "W_k", "W_v"), "x itself is used for the queries: they have W_q."),
    (_from("W_q", "", "W_v"), "x itself is used for the keys: they have W_k."),
    (_from("W_q", "W_k", "W_k"), "W_k is used for the values, too: they have W_v."),
    (_from("W_q", "W_k", "W_q"), "W_q is used for the values, too: they have W_v."),
    (_from("W_q", "W_q", "W_v"), "W_q is used for the keys, too: they have W_k."),
    (_from("W_q", "W_v", "W_v"), "W_v is used for the keys, too: they have W_k."),
    (_from("W_k", "W_k", "W_v"), "W_k is used for the queries, too: they have W_q."),
    (_from("W_v", "W_k", "W_v"), "W_v is used for the queries, too: they have W_q."),
    (_from("W_k", "W_q", "W_v"), "W_q and W_k are exchanged."),
    (_from("W_q", "W_v", "W_k"), "W_k and W_v are exchanged."),
    (_from("W_v", "W_k", "W_q"), "W_q and W_v are exchanged."),
]


@verdict
def check_multi_head(multi_head_class: type[nn.Module]) -> str:
    """Notebook 01, exercise 4. Returns a verdict; raises AssertionError on a wrong module."""
    right = MultiHeadAttention
    for sizes in ({"d_model": 6, "num_heads": 3}, {"d_model": 4}):
        module = made(multi_head_class, right, Use(NAME, sizes, (), training=True))
        rests(module, random(0, 2, 4, sizes["d_model"]), NOTHING_RANDOM)
    for method, wrongs in (("split_heads", SPLITS), ("merge_heads", MERGES)):
        judge(
            using(multi_head_class, right, method),
            using(right, right, method),
            uses(method),
            [(using(wrong, right, method), advice) for wrong, advice in wrongs],
            number=40,
        )
    judge(
        using(multi_head_class, right),
        using(right, right),
        uses(),
        [(using(wrong, right), advice) for wrong, advice in FORWARDS],
        number=60,
        advice="split_heads and merge_heads are right: look at forward.",
    )
    judge(
        learning(multi_head_class, right),
        learning(right, right),
        uses(),
        number=5,
        advice=DETACHED,
    )
    sizes = ((2, 4), (2, 4), (2, 2), (5, 6), (1, LONG))
    inputs = [random(seed, *size, 6) for seed, size in enumerate(sizes)]
    right_again(multi_head_class, right, Use(NAME, {"d_model": 6, "num_heads": 3}, ()), inputs)
    follows_its_device(
        lambda module, device: module(torch.empty(2, 5, 12, device=device)),
        NAME,
        multi_head_class(12, 3),
    )
    return (
        "MultiHeadAttention is right: one head, several, and as many as dimensions, one token and "
        "more, used again, its gradients, and on any device."
    )
