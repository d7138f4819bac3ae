"""How `embed` of the model with a cache is judged (notebook 04, exercise 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from ..kv_cache import GrowingCache
from ..transformer import DecoderOnlyTransformer
from .common import is_stub, raised
from .inputs import random
from .modules import Use, made
from .n02_dropout import dropped
from .seen import Seen, judge_seen

P = 0.25
SIZES = {"vocab_size": 11, "d_model": 12, "d_ff": 5, "num_layers": 1, "num_heads": 3}
Positions = Callable[[Tensor, int], Tensor]


def _placed(positions: Positions) -> type[DecoderOnlyTransformer]:
    """One whose tokens (B, T) from `start` on get other positions."""

    class Wrong(DecoderOnlyTransformer):
        def embed(self, input_ids: Tensor, start: int = 0) -> Tensor:
            where = positions(input_ids, start)
            return self.token_embedding(input_ids) + self.pos_embedding(where)

    return Wrong


def _counted(ids: Tensor, start: int) -> Tensor:
    return torch.arange(start, start + ids.size(1))


class _TokensOnly(DecoderOnlyTransformer):
    def embed(self, input_ids: Tensor, start: int = 0) -> Tensor:
        return self.token_embedding(input_ids)


class _PositionsOnly(DecoderOnlyTransformer):
    def embed(self, input_ids: Tensor, start: int = 0) -> Tensor:
        found = self.pos_embedding(_counted(input_ids, start))
        return found.expand(len(input_ids), -1, -1)


AT = "The positions are start, start + 1, ..., start + Q - 1."

WRONG_EMBEDDINGS = [
    (
        _placed(lambda ids, start: _counted(ids, 0)),
        "`start` is not used: each chunk begins at position 0 again. " + AT,
    ),
    (
        _placed(lambda ids, start: _counted(ids, start + 1)),
        "All positions are one too high. " + AT,
    ),
    (
        _placed(lambda ids, start: _counted(ids, start + (start > 0))),
        "After a cache all positions are one too high. " + AT,
    ),
    (
        _placed(lambda ids, start: _counted(ids, max(start - 1, 0))),
        "After a cache all positions are one too low. " + AT,
    ),
    (
        _placed(lambda ids, start: _counted(ids, 2 * start)),
        "`start` is added twice. " + AT,
    ),
    (
        _placed(lambda ids, start: torch.full_like(ids, start)),
        "All tokens of a chunk get the position of its first. " + AT,
    ),
    (
        _placed(lambda ids, start: _counted(ids, start).flip(0)),
        "The positions of a chunk are in reverse. " + AT,
    ),
    (_placed(lambda ids, start: ids), "The positions are the tokens' ids. " + AT),
    (_TokensOnly, "The position embedding is missing: add it to the token embedding."),
    (_PositionsOnly, "The token embedding is missing: add it to the position embedding."),
]


@dataclass(frozen=True)
class Embedding:
    """A call of embed; without a start where that is None."""

    rows: int
    tokens: int
    start: int | None

    def __str__(self) -> str:
        start = "" if self.start is None else f", start={self.start}"
        return f"embed(<ids ({self.rows}, {self.tokens})>{start}):"

    def made(self, model_class: type[nn.Module]) -> nn.Module:
        """A model with five positions to spare."""
        room = {"max_seq_len": self.tokens + (self.start or 0) + 5, "dropout": 0.5}
        return made(model_class, DecoderOnlyTransformer, Use("", SIZES | room, ()))

    def ids(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randint(11, (self.rows, self.tokens), generator=generator)


@torch.no_grad()
def embedded(model_class: type[nn.Module], case: Embedding) -> Seen:
    """What embed returns, and the ids afterwards."""
    model, ids = case.made(model_class), case.ids()
    try:
        found = model.embed(ids, *([] if case.start is None else [case.start]))
    except Exception as error:
        if is_stub(error):
            raise
        raise AssertionError(raised(error)) from error
    return {"input_ids, which was handed in,": ids, "the result": found}


def judge_embed(model_class: type[nn.Module]) -> None:
    """Raise AssertionError unless, at rest, the model adds positions from `start` on."""
    _repeats(model_class)
    judge_seen(
        embedded,
        model_class,
        DecoderOnlyTransformer,
        st.builds(
            Embedding, st.integers(1, 3), st.integers(1, 4), st.sampled_from((None, 0, 1, 3, 6))
        ),
        WRONG_EMBEDDINGS,
        [Embedding(2, 3, start) for start in (None, 0, 2)],
        first=[Embedding(1, 4, start) for start in (None, 0, 1, 5)],
        number=15,
        hints={"The size of tensor": AT},
    )


@torch.no_grad()
def _repeats(model_class: type[nn.Module]) -> None:
    case = Embedding(4, 32, None)
    try:
        one, other = (embedded(model_class, case)["the result"] for _ in range(2))
    except AssertionError:
        return  # judge_seen will say more
    if isinstance(one, Tensor) and not torch.equal(one, other):
        raise AssertionError(
            "embed is not the same twice, although the model is not in training. self.dropout "
            "knows when to drop out."
        )


@torch.no_grad()
def judge_dropout(model_class: type[nn.Module]) -> None:
    """Raise AssertionError unless the model, in training, drops numbers of the sum, and once.

    Where it does so is its own affair. Its layers add nothing here.
    """
    sizes = SIZES | {"num_layers": 2, "max_seq_len": 11, "dropout": P}
    model = made(model_class, DecoderOnlyTransformer, Use("", sizes, ()))
    for layer in model.layers:
        for last in (layer.attention.W_o, layer.feed_forward.fc2):
            for parameter in last.parameters():
                parameter.zero_()
    into_layers: list[Tensor] = []
    model.layers[0].norm1.register_forward_pre_hook(lambda _, given: into_layers.append(given[0]))
    ids = torch.arange(64).view(8, 8) % SIZES["vocab_size"]
    filled = GrowingCache(model, 8)
    for number in range(2):
        filled.append(number, *random(number, 2, 8, 3, 3, 4))
    for how, start, given in (
        ("without a cache", 0, ()),
        ("with a cache", 0, (None, True)),
        ("after 3 tokens in a cache", 3, (filled, True)),
    ):
        whole = model.eval().embed(ids, start)
        torch.manual_seed(0)
        into_layers.clear()
        logits = model.train()(ids, *given)[0]
        x = torch.cat(into_layers)
        if wrong := dropped(x, whole, P):
            raise AssertionError(
                f"In training with dropout={P}, {how}, what goes into the first layer {wrong}. "
                "self.dropout goes on the sum of the two embeddings, once."
            )
        if not torch.allclose(logits, model.output_projection(model.norm(x))):
            raise AssertionError(
                f"In training with dropout={P}, {how}, numbers are dropped after the embeddings, "
                "too. The layers have their own dropout; the model's goes on the sum of the two "
                "embeddings alone."
            )
