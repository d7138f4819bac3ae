"""Ways in which a cache goes wrong, each a few lines on top of the right one, and the diagnosis.

`CATALOGUE` holds them by name. `diagnose` tells which of them a wrong model behaves like.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unittest import mock

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from . import evaluation as harness
from .attention import MultiHeadAttention, attention, attention_weights
from .kv_cache import GrowingCache, PreallocatedCache
from .left_padding import LeftPaddedAttention, LeftPaddedTransformer
from .transformer import DecoderOnlyTransformer


@dataclass(frozen=True)
class CacheBug:
    """One way to get a cache wrong: what is done, what it leads to, where to look."""

    name: str
    mistake: str
    symptom: str
    look: str
    seen: str
    model_class: type[nn.Module]

    def build(self, reference: DecoderOnlyTransformer) -> nn.Module:
        """A model with this bug and the weights, dtype and device of `reference`."""
        vocab_size, d_model = reference.token_embedding.weight.shape
        d_ff = reference.layers[0].feed_forward.fc1.out_features
        shape = (vocab_size, d_model, d_ff, reference.num_layers, reference.max_seq_len)
        model = self.model_class(*shape, num_heads=reference.num_heads, dropout=0.0)
        model.load_state_dict(reference.state_dict())
        harness.refuse_missing_rows(model)
        return model.to(device=reference.device, dtype=reference.dtype).eval()


CATALOGUE: dict[str, CacheBug] = {}
TEACHING = "has shipped in a well-known teaching repository"
SOLUTION = "in a public solution of the original assignment"
LEAST_ROOM = 12
PAST_THE_END = "past the end"
EXTRAS = ("after a rollback", "prompts of different length", "on another device")
AFTER_OTHERS = ("a second time", "without a cache, afterwards")
UNKNOWN = "No wrong cache of the catalogue behaves like this."


def bug(name: str, mistake: str, symptom: str, look: str, seen: str = "") -> Callable:
    """Enter a model class into the catalogue."""

    def enter(model_class: type[nn.Module]) -> type[nn.Module]:
        CATALOGUE[name] = CacheBug(name, mistake, symptom, look, seen, model_class)
        return model_class

    return enter


class WrongAttention(MultiHeadAttention):
    """An attention layer that masks wrongly when there are more keys than queries."""

    def wrong_mask(self, num_queries, num_keys):
        raise NotImplementedError

    def attend(self, q, k, v):
        num_queries, num_keys = q.size(-2), k.size(-2)
        if num_queries == num_keys:
            return super().attend(q, k, v)
        mask = self.wrong_mask(num_queries, num_keys)
        return attention(q, k, v, None if mask is None else mask.to(q.device))


def shifted_mask(num_queries, num_keys, shift):
    """The right mask with every query seeing `shift` keys more (or fewer)."""
    offset = num_keys - num_queries + shift
    return torch.ones(num_queries, num_keys, dtype=torch.bool).tril(offset)


class NoMaskOffset(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, num_queries - num_keys)


class MaskOneTooFar(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, 1)


class MaskOneTooShort(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return shifted_mask(num_queries, num_keys, -1)


class UnmaskedAppend(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return None


class MaskColumns(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        square = torch.ones(num_keys, num_keys, dtype=torch.bool).tril()
        return square[:, num_keys - num_queries :].T


class MaskInverted(WrongAttention):
    def wrong_mask(self, num_queries, num_keys):
        return ~shifted_mask(num_queries, num_keys, 0)


class MaybeUnmasked(MultiHeadAttention):
    unmasked = False

    def attend(self, q, k, v):
        return attention(q, k, v) if self.unmasked else super().attend(q, k, v)


class WithAttention(DecoderOnlyTransformer):
    """A model whose attention layers are of the class `attention_class`."""

    attention_class: type[nn.Module]

    def __init__(self, vocab_size, d_model, *args, num_heads=1, **kwargs):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kwargs)
        for layer in self.layers:
            layer.attention = self.attention_class(d_model, num_heads)


class WithCache(DecoderOnlyTransformer):
    """A model whose caches are of the class `cache_class`."""

    cache_class: type

    def new_cache(self, batch_size):
        return self.cache_class(self, batch_size)


@bug(
    "positions_restart",
    "every cached call counts positions from 0",
    "each decoded token takes itself for the first of the text",
    "the positions of new tokens start at past_kv.length",
    "Dive into Deep Learning, predict_step; " + SOLUTION,
)
class NoPositionOffset(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        return super().embed(input_ids, 0)


@bug(
    "position_one_too_far",
    "new tokens stand one position behind where they belong",
    "one position is left out between the cached tokens and the new ones",
    "the first new token stands at past_kv.length, not behind it",
)
class PositionOneTooFar(DecoderOnlyTransformer):
    def embed(self, input_ids, start=0):
        room = self.max_seq_len - input_ids.size(1)
        return super().embed(input_ids, min(start + 1, room) if start else 0)


@bug(
    "position_leaks",
    "the next position is kept in the model, and an uncached call starts there too",
    "the model is right until it is used without a cache after a cached call",
    "the position belongs to the cache, not to the model",
    TEACHING,
)
class PositionLeaks(DecoderOnlyTransformer):
    position = 0

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if use_cache:
            logits, past_kv = super().forward(input_ids, past_kv, use_cache)
            self.position = past_kv.length
            return logits, past_kv
        self.check_input(input_ids, past_kv, use_cache)
        room = self.max_seq_len - input_ids.size(1)
        x = self.embed(input_ids, min(self.position, room))
        for layer in self.layers:
            x = layer(x)
        return self.output_projection(self.norm(x)), None


@bug(
    "no_mask_offset",
    "the triangle of the mask starts at the first key",
    "a new token sees only the first key",
    "the shape of your mask when one query meets six keys: the last row, not the first",
    SOLUTION,
)
class NoMaskOffsetModel(WithAttention):
    attention_class = NoMaskOffset


@bug(
    "mask_one_too_far",
    "each new token sees one key too many",
    "right as long as tokens come one by one; in a chunk, each sees the next one",
    "the last of several queries sees all keys, the one before it one less",
)
class MaskOneTooFarModel(WithAttention):
    attention_class = MaskOneTooFar


@bug(
    "self_excluded",
    "each new token sees one key too few: not its own",
    "decoded tokens attend to everything but themselves, and answers may still be right",
    "k and v of the new token are stored before its query attends",
    TEACHING,
)
class MaskOneTooShortModel(WithAttention):
    attention_class = MaskOneTooShort


@bug(
    "append_unmasked",
    "no mask at all when there is a cache",
    "right as long as tokens come one by one; in a chunk, each sees those after it",
    "several new tokens need a mask of several rows",
    TEACHING,
)
class UnmaskedAppendModel(WithAttention):
    attention_class = UnmaskedAppend


@bug(
    "mask_columns",
    "the mask is cut along the keys instead of the queries",
    "a new token sees itself and nothing before it",
    "take the last Q rows of the square mask, not its last Q columns",
    TEACHING,
)
class MaskColumnsModel(WithAttention):
    attention_class = MaskColumns


@bug(
    "mask_inverted",
    "with a cache, True and False of the mask are exchanged",
    "a single new token sees nothing at all: NaN",
    "whether your mask says 'may look' or 'may not look', and who reads it",
    TEACHING,
)
class MaskInvertedModel(WithAttention):
    attention_class = MaskInverted


@bug(
    "prefill_unmasked",
    "the prefill runs without a mask",
    "the tokens of the prompt have seen what comes after them, and so have their cached keys",
    "the first cached call needs the same square mask as an uncached one",
)
class PrefillUnmasked(WithAttention):
    attention_class = MaybeUnmasked

    def forward(self, input_ids, past_kv=None, use_cache=False):
        for layer in self.layers:
            layer.attention.unmasked = use_cache and past_kv is None
        return super().forward(input_ids, past_kv, use_cache)


@bug(
    "whole_text_again",
    "all tokens are fed in again on top of the cache that already holds most of them",
    "every token is there several times, and the new ones count double",
    "with a cache, only the tokens that are not in it go in",
    SOLUTION,
)
class WholeSequenceAgain(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        seen, cache = past_kv or (input_ids[:, :0], None)
        ids = torch.cat([seen, input_ids], dim=1)
        x = self.embed(ids)
        cache = cache or GrowingCache(self, ids.size(0))
        for i, layer in enumerate(self.layers):
            x = layer(x, cache, i)
        logits = self.output_projection(self.norm(x))
        return logits[:, -input_ids.size(1) :], (ids, cache)


@bug(
    "prompt_dropped",
    "the prefill stores nothing",
    "the first decoded token knows nothing of the prompt",
    "the cache is filled by the first call too",
    SOLUTION,
)
class PromptDropped(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is None:
            return super().forward(input_ids)[0], (input_ids.size(1), None)
        start, cache = past_kv
        cache = cache or GrowingCache(self, input_ids.size(0))
        x = self.embed(input_ids, start)
        for i, layer in enumerate(self.layers):
            x = layer(x, cache, i)
        return self.output_projection(self.norm(x)), (start + input_ids.size(1), cache)


class CountedCache(GrowingCache):
    """A growing cache that counts positions apart from what it holds."""

    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.positions = [0] * len(self.keys)

    @property
    def length(self):
        return self.positions[0]

    def append(self, layer, k, v):
        self.positions[layer] += k.size(2)
        return super().append(layer, k, v)

    def truncate(self, length):
        super().truncate(length)
        self.positions = [length] * len(self.positions)


class FirstTokenMissing(CountedCache):
    def append(self, layer, k, v):
        first = self.positions[layer] == 0
        found = super().append(layer, k, v)
        if first:
            self.keys[layer] = self.keys[layer][:, :, 1:]
            self.values[layer] = self.values[layer][:, :, 1:]
        return found


@bug(
    "first_token_missing",
    "the first token of the text is used once and not stored",
    "every later token misses the beginning",
    "what is appended in the first call starts at position 0",
    TEACHING,
)
class FirstTokenMissingModel(WithCache):
    cache_class = FirstTokenMissing


class StaleAfterFirstStep(CountedCache):
    def append(self, layer, k, v):
        old, stored = (self.keys[layer], self.values[layer]), self.positions[layer]
        found = super().append(layer, k, v)
        if stored:
            self.keys[layer], self.values[layer] = old
        return found


@bug(
    "stale",
    "the prompt is stored; what is decoded later is used once and forgotten",
    "the first decoded token is right, the second misses it",
    "the cache that comes back from the last call must go into the next",
)
class StaleModel(WithCache):
    cache_class = StaleAfterFirstStep


class AppendedTwice(CountedCache):
    def append(self, layer, k, v):
        stored = self.positions[layer]
        found = super().append(layer, k, v)
        if stored:
            self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
            self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return found


@bug(
    "appended_twice",
    "each decoded token is stored twice",
    "the first decoded token is right; from the second on, earlier ones count double",
    "append is called once per layer and call",
)
class AppendedTwiceModel(WithCache):
    cache_class = AppendedTwice


class KeysOnly(GrowingCache):
    def append(self, layer, k, v):
        keys, _ = super().append(layer, k, v)
        old = torch.zeros_like(keys[:, :, : keys.size(2) - v.size(2)])
        return keys, torch.cat([old, v], dim=2)


@bug(
    "values_not_cached",
    "the keys are cached, the values are not",
    "tokens look at the right places and find nothing there",
    "append both, and return both",
)
class KeysOnlyModel(WithCache):
    cache_class = KeysOnly


class OneLayerForAll(GrowingCache):
    def append(self, layer, k, v):
        return super().append(0, k, v) if layer == 0 else (self.keys[0], self.values[0])


@bug(
    "one_layer_for_all",
    "every layer reads the first layer's keys and values",
    "wrong from the first token on in a model of more than one layer",
    "the layer's number must reach append",
)
class OneLayerForAllModel(WithCache):
    cache_class = OneLayerForAll


@bug(
    "last_block_for_all",
    "with a cache, every layer runs with the last block's weights",
    "wrong from the first cached token on in a model of more than one layer",
    "the loop over the layers: which block does each round call?",
    TEACHING,
)
class LastBlockForAll(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids, past_kv)
        self.check_input(input_ids, past_kv, use_cache)
        past_kv = past_kv or self.new_cache(input_ids.size(0))
        x = self.embed(input_ids, past_kv.length)
        for i in range(self.num_layers):
            x = self.layers[-1](x, past_kv, i)
        return self.output_projection(self.norm(x)), past_kv


class HeadsRotated(GrowingCache):
    def append(self, layer, k, v):
        self.keys[layer] = self.keys[layer].roll(1, dims=1)
        self.values[layer] = self.values[layer].roll(1, dims=1)
        return super().append(layer, k, v)


@bug(
    "heads_mixed_up",
    "stored keys and values come back under another head",
    "right with one head; with more, each head reads another one's past",
    "the order of the dimensions when you store, and when you read",
)
class HeadsMixedUp(WithCache):
    cache_class = HeadsRotated


class SharedRows(PreallocatedCache):
    def append(self, layer, k, v):
        keys, values = super().append(layer, k, v)
        return keys[:1].expand_as(keys), values[:1].expand_as(values)


@bug(
    "rows_shared",
    "all rows of a batch read the first row's cache",
    "right for one sequence, wrong for the second row of a batch",
    "the batch dimension must be stored and read in full",
)
class SharedRowsModel(WithCache):
    cache_class = SharedRows


@bug(
    "leaks_into_the_next",
    "the model keeps its cache, and a new generation does not empty it",
    "the first generation is right, the second has the first one's text before it",
    "a call without past_kv must begin with an empty cache",
)
class Leaking(DecoderOnlyTransformer):
    def new_cache(self, batch_size):
        if not hasattr(self, "kept") or self.kept.keys[0].size(0) != batch_size:
            self.kept = GrowingCache(self, batch_size)
        return self.kept


@bug(
    "one_cache_per_model",
    "the model keeps one cache, which each new generation empties",
    "generations one after the other are right; two at the same time overwrite each other",
    "past_kv must hold the cache itself, not a sign that there is one",
)
class OneCachePerModel(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        logits, self.kept = super().forward(input_ids, self.kept if past_kv else None, True)
        return logits, "there is one"


@bug(
    "keys_before_position",
    "the keys of the prompt are stored before its positions are added",
    "cached tokens do not know where they stood",
    "what is stored is made from the same x that the layer attends with",
)
class BeforePosition(DecoderOnlyTransformer):
    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        if past_kv is not None and past_kv.length:
            return super().forward(input_ids, past_kv, use_cache)
        logits, _ = super().forward(input_ids)
        past_kv = self.new_cache(input_ids.size(0))
        x = self.token_embedding(input_ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, past_kv, i)
        return logits, past_kv


class HalfPrecision(GrowingCache):
    def append(self, layer, k, v):
        found = super().append(layer, k, v)
        self.keys[layer] = self.keys[layer].half().to(k.dtype)
        self.values[layer] = self.values[layer].half().to(v.dtype)
        return found


@bug(
    "stored_in_float16",
    "keys and values are stored in float16, whatever the model's dtype is",
    "words look right; logits are off in the third or fourth decimal",
    "the dtype of the cache is the model's",
)
class HalfPrecisionModel(WithCache):
    cache_class = HalfPrecision


class DefaultDtype(PreallocatedCache):
    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        self.keys, self.values = self.keys.float(), self.values.float()


@bug(
    "cache_in_default_dtype",
    "the cache is allocated without saying which dtype",
    "right in float32; an error in float64, float16 and bfloat16",
    "torch.empty(..., dtype=model.dtype, device=model.device)",
)
class DefaultDtypeModel(WithCache):
    cache_class = DefaultDtype


class Sliding(DecoderOnlyTransformer):
    """Past its end, the model goes on at its last position instead of raising an error."""

    def check_input(self, input_ids, past_kv, use_cache):
        pass

    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        positions = positions.clamp(max=self.max_seq_len - 1)
        return self.token_embedding(input_ids) + self.pos_embedding(positions)

    def new_cache(self, batch_size):
        return GrowingCache(self, batch_size)


@bug(
    "last_position_repeats",
    "past max_seq_len every token stands at the last position",
    "right up to the end; past it numbers that mean nothing, and no error",
    "compare past_kv.length + new tokens with max_seq_len before any work",
)
class LastPositionRepeats(Sliding):
    pass


@bug(
    "positions_wrap_round",
    "past max_seq_len positions start at 0 again",
    "right up to the end; past it numbers that mean nothing, and no error",
    "compare past_kv.length + new tokens with max_seq_len before any work",
)
class PositionsWrapRound(Sliding):
    def embed(self, input_ids, start=0):
        positions = torch.arange(start, start + input_ids.size(1), device=input_ids.device)
        positions = positions % self.max_seq_len
        return self.token_embedding(input_ids) + self.pos_embedding(positions)


class OneDevice(PreallocatedCache):
    def __init__(self, model, batch_size):
        super().__init__(model, batch_size)
        shape = self.keys.shape
        self.keys, self.values = (torch.empty(shape, dtype=model.dtype) for _ in range(2))


@bug(
    "cache_on_the_cpu",
    "the cache is allocated without saying on which device",
    "right on the CPU; an error as soon as the model is on a GPU",
    "torch.empty(..., dtype=model.dtype, device=model.device)",
)
class OneDeviceModel(WithCache):
    cache_class = OneDevice


class RolledBackInOneLayer(PreallocatedCache):
    def truncate(self, length):
        self.lengths[0] = length


@bug(
    "rollback_of_one_layer",
    "a rollback sets back the first layer only",
    "right until guesses are taken back; then the deeper layers still hold them",
    "every layer has a length of its own, and all of them are set back",
)
class RolledBackInOneLayerModel(WithCache):
    cache_class = RolledBackInOneLayer


class PositionsNotRolledBack(CountedCache):
    def truncate(self, length):
        GrowingCache.truncate(self, length)


@bug(
    "rollback_keeps_position",
    "a rollback drops keys and values, but the count of positions goes on",
    "right until guesses are taken back; then new tokens stand too far behind",
    "what says where the next token stands: it goes back with the keys",
)
class PositionsNotRolledBackModel(WithCache):
    cache_class = PositionsNotRolledBack


class PaddingInSight(LeftPaddedAttention):
    def mask(self, num_queries, num_keys, padding):
        if num_queries < num_keys:
            padding = torch.zeros_like(padding)
        return super().mask(num_queries, num_keys, padding)


@bug(
    "padding_in_sight",
    "the padding of a batch is masked in the prefill and forgotten in decoding",
    "right for prompts of equal length; of several, the shorter ones attend to nothing's keys",
    "the mask of every later call must hide the padding too",
)
class PaddingInSightModel(LeftPaddedTransformer):
    attention_class = PaddingInSight


@bug(
    "padding_counted",
    "in decoding, positions count the padding",
    "right for prompts of equal length; of several, the shorter ones jump ahead",
    "positions count from each row's first real token, in every call",
)
class PaddingCounted(LeftPaddedTransformer):
    def positions(self, columns, padding):
        return super().positions(columns, padding if columns[0] == 0 else 0 * padding)


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; `bug` is None if the model is right, or wrong in no known way."""

    right: bool
    bug: CacheBug | None
    message: str

    def __str__(self) -> str:
        return self.message


def probes(reference: DecoderOnlyTransformer) -> dict[str, Callable[[nn.Module], Tensor]]:
    """Runs of a model that tell the catalogue's bugs apart; each returns logits or raises.

    They belong together, in this order: some bugs show only after other calls.
    """
    generator = torch.Generator().manual_seed(0)
    room, vocab_size = reference.max_seq_len, reference.token_embedding.num_embeddings
    if room < LEAST_ROOM:
        raise ValueError(f"max_seq_len={room} is too short to tell bugs apart: needs {LEAST_ROOM}.")

    def draw(*shape: int) -> Tensor:
        return torch.randint(vocab_size, shape, generator=generator).to(reference.device)

    ids, other, batch, full = draw(1, 12), draw(1, 12), draw(3, 12), draw(1, room + 1)
    decoded = (6, 1, 1, 1, 1, 1, 1)
    return {
        "at once": lambda m: harness.in_portions(m, ids, (12,)),
        "one by one": lambda m: harness.in_portions(m, ids, decoded),
        "one by one from the start": lambda m: harness.in_portions(m, ids, (1,) * 12),
        "in chunks": lambda m: harness.in_portions(m, ids, (6, 2, 4)),
        "in a batch": lambda m: harness.in_portions(m, batch, decoded),
        "a second time": lambda m: harness.in_portions(m, other, decoded),
        "two at the same time": lambda m: torch.cat(harness.alternating(m, ids, other)),
        "without a cache, afterwards": lambda m: harness.uncached(m, ids),
        PAST_THE_END: lambda m: harness.in_portions(m, full, (room - 2, 1, 1, 1)),
        "after a rollback": lambda m: _rolled_back(m, ids),
        "prompts of different length": lambda m: _padded(m, batch),
        "on another device": lambda m: _moved(m, ids),
    }


def _rolled_back(model: nn.Module, ids: Tensor) -> Tensor:
    """A model whose cache has no `truncate` runs the text from its start instead."""
    if harness.can_roll_back(model, ids):
        return harness.after_rollback(model, ids, 6)
    return harness.in_portions(model, ids, (1,) * ids.size(1))


def _padded(model: nn.Module, batch: Tensor) -> Tensor:
    """A model without `padded_cache` runs the prompts one after the other instead."""
    rows = [batch[0], batch[1, 3:], batch[2, 5:]]
    if hasattr(model, "padded_cache"):
        return harness.side_by_side(model, rows, 4)
    alone = [harness.in_portions(model, row[None], (len(row) - 4, 1, 1, 1, 1)) for row in rows]
    return pad_sequence([logits[0] for logits in alone], batch_first=True)


def _moved(model: nn.Module, ids: Tensor) -> Tensor:
    harness.follows_its_device(model, ids)
    return torch.zeros(1, 1, 1)


def survey(reference: DecoderOnlyTransformer) -> dict[str, dict[str, bool]]:
    """For each entry of the catalogue: which probes, each on a model of its own, see that it is
    wrong."""
    reference, tolerance = harness.precise_copy(reference)
    runs = probes(reference)
    expected = {name: _outcome(run, reference) for name, run in runs.items()}
    seen = {}
    for entry in CATALOGUE.values():
        seen[entry.name] = {}
        for name, run in runs.items():
            wrong = entry.build(reference)
            if name in AFTER_OTHERS:
                _outcome(runs["one by one"], wrong)
            agrees = _agree(_outcome(run, wrong), expected[name], tolerance, name)
            seen[entry.name][name] = not agrees
    return seen


def symptoms(model: nn.Module, reference: DecoderOnlyTransformer) -> pd.DataFrame:
    """How the model fares in each probe but the `EXTRAS`, and from which position on it is wrong.

    Each probe gets a copy of the model as it came; some of them run another text first.
    """
    reference, tolerance = harness.precise_copy(reference)
    runs = probes(reference)
    rows = {}
    for name, run in runs.items():
        if name not in EXTRAS:
            copied = harness.precise_copy(model)[0]
            if name in AFTER_OTHERS:
                _outcome(runs["one by one"], copied)
            found, expected = _outcome(run, copied), _outcome(run, reference)
            rows[name] = "right"
            if not _agree(found, expected, tolerance, name):
                rows[name] = _where("", found, expected, tolerance).removeprefix(": ")
    return pd.DataFrame({"the logits": rows})


@torch.no_grad()
def looks(model: nn.Module, input_ids: Tensor, portions: Sequence[int]) -> list[Tensor]:
    """What each token of (1, T) looked at when fed in `portions`: its attention weights (K,).

    They are averaged over all heads and layers. The model must use `attention_weights` of
    `course_utils.attention`.
    """
    heard = []

    def listen(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
        weights = attention_weights(q, k, mask)
        heard.append(weights[0].mean(0))
        return weights

    rows, past_kv = [], None
    for portion in input_ids.split(list(portions), dim=1):
        heard.clear()
        with mock.patch("course_utils.attention.attention_weights", listen):
            _, past_kv = model(portion, past_kv=past_kv, use_cache=True)
        rows += torch.stack(heard).mean(0)
    return rows


def diagnose(model: nn.Module, reference: DecoderOnlyTransformer) -> Diagnosis:
    """Is the model's cache right, and if not, which wrong cache of the catalogue is it?

    `reference` is a right model with the same weights. A name is given only to a model that
    agrees with the catalogue's entry in every probe (if it is wrong in plain decoding already, the
    `EXTRAS` are left out); otherwise the evidence is shown. Give it a model that has not generated
    yet: what one keeps from an earlier call changes its outcomes.
    """
    reference, tolerance = harness.precise_copy(reference)
    model = harness.precise_copy(model)[0]
    runs = probes(reference)
    expected = {name: _outcome(run, reference) for name, run in runs.items()}
    plain = _outcome(runs["without a cache, afterwards"], model)
    if not _agree(plain, expected["without a cache, afterwards"], tolerance):
        return Diagnosis(
            False, None, "The model is wrong without its cache. Make evaluate pass first."
        )
    found = {name: _outcome(run, model) for name, run in runs.items()}
    wrong = [name for name in runs if not _agree(found[name], expected[name], tolerance, name)]
    compared = [name for name in runs if name not in EXTRAS]
    if set(wrong) <= set(EXTRAS):
        compared = list(runs)
    if not wrong:
        report = harness.kv_evaluate(model, _cases(reference))
        if report.all_passed:
            return Diagnosis(True, None, "The cache gives the uncached logits.")
        return Diagnosis(False, None, f"{report.problems[0]}. {UNKNOWN}")
    where = _where(wrong[0], found[wrong[0]], expected[wrong[0]], tolerance)
    for entry in CATALOGUE.values():
        candidate = entry.build(reference)
        if all(
            _agree(found[name], _outcome(runs[name], candidate), tolerance, name)
            for name in compared
        ):
            return Diagnosis(
                False,
                entry,
                f"{where} Identical to `{entry.name}`: {entry.mistake}. What it leads to: "
                f"{entry.symptom}. Where to look: {entry.look}.",
            )
    layer = _first_wrong_layer(model, reference, runs[wrong[0]], tolerance)
    still = [name for name in runs if name not in wrong] or ["nothing"]
    return Diagnosis(False, None, f"{where} {UNKNOWN}{layer} Still right: {', '.join(still)}.")


def _outcome(run: Callable[[nn.Module], Tensor], model: nn.Module) -> Tensor | str:
    try:
        return run(model).cpu().double()
    except NotImplementedError:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _agree(found: Tensor | str, expected: Tensor | str, tolerance: float, name: str = "") -> bool:
    """Errors agree if they are the same; past the end, where any error is right, always."""
    if isinstance(found, str) or isinstance(expected, str):
        return type(found) is type(expected) and (name == PAST_THE_END or found == expected)
    same_shape = found.shape == expected.shape
    return same_shape and torch.allclose(found, expected, 0, tolerance, equal_nan=True)


def _where(name: str, found: Tensor | str, expected: Tensor | str, tolerance: float) -> str:
    if isinstance(found, str):
        return f"{name}: {found.splitlines()[0].rstrip('.')}."
    if isinstance(expected, str):
        return f"{name}: no error was raised; expected one."
    difference = harness.first_difference(expected, found, tolerance)
    size = "NaN" if math.isinf(difference.largest) else f"{difference.largest:#.3g}"
    return f"{name}: differs from position {difference.position} on (max |Δlogit| {size})."


def _first_wrong_layer(
    model: nn.Module, reference: nn.Module, run: Callable, tolerance: float
) -> str:
    """Which layer's output is off first, if the model has layers that can be listened to."""
    heard = []
    for candidate in (reference, model):
        outputs = [[] for _ in getattr(candidate, "layers", [])]
        hooks = [
            layer.register_forward_hook(lambda _, args, out, kept=kept: kept.append(out))
            for layer, kept in zip(getattr(candidate, "layers", []), outputs, strict=True)
        ]
        _outcome(run, candidate)
        for hook in hooks:
            hook.remove()
        heard.append(outputs)
    for number, (right, found) in enumerate(zip(*heard, strict=False), start=1):
        pairs = list(zip(right, found, strict=False))
        shapes_agree = all(getattr(b, "shape", None) == a.shape for a, b in pairs)
        if not shapes_agree or len(right) != len(found):
            return ""
        if not all(torch.allclose(a, b, 0, tolerance) for a, b in pairs):
            return f" The output of layer {number} is the first that is off."
    return ""


def _cases(reference: DecoderOnlyTransformer) -> list[harness.TestCase]:
    """A few inputs with the right logits, for `kv_evaluate`."""
    generator = torch.Generator().manual_seed(1)
    cases = []
    for shape in ((1, 1), (1, 7), (2, 5)):
        ids = torch.randint(reference.token_embedding.num_embeddings, shape, generator=generator)
        logits = harness.uncached(reference, ids.to(reference.device)).cpu().double()
        cases.append(harness.TestCase(ids, logits, logits, logits))
    return cases
