"""Models with a cache that go wrong as students' do, and what those are told (notebook 04)."""

from collections.abc import Callable

from torch import Tensor

from ..attention import KeyValueStore
from ..transformer import DecoderOnlyTransformer

Cache = KeyValueStore | None


class _Wrong(DecoderOnlyTransformer):
    """The course's, with what may go wrong in the last lines of `forward` as functions."""

    def start(self, past_kv: Cache, new: int) -> int:
        return 0 if past_kv is None else past_kv.length

    def enter(self, input_ids: Tensor, start: int) -> Tensor:
        return self.embed(input_ids, start)

    def through(self, number: int, x: Tensor, past_kv: Cache) -> Tensor:
        return self.layers[number](x, past_kv, number)

    def taken(self, past_kv: Cache, new: int) -> Cache:
        return past_kv

    def finish(self, x: Tensor) -> Tensor:
        return self.output_projection(self.norm(x))

    def forward(
        self, input_ids: Tensor, past_kv: Cache = None, use_cache: bool = False
    ) -> tuple[Tensor, Cache]:
        self.check_input(input_ids, past_kv, use_cache)
        if use_cache and past_kv is None:
            past_kv = self.new_cache(input_ids.size(0))
        if use_cache:
            past_kv = self.taken(past_kv, input_ids.size(0))
        x = self.enter(input_ids, self.start(past_kv, input_ids.size(1)))
        for number in range(len(self.layers)):
            x = self.through(number, x, past_kv)
        return self.finish(x), past_kv


def _with(**methods: Callable) -> type[_Wrong]:
    return type("Wrong", (_Wrong,), methods)


def _started(start: Callable[[int, int], int]) -> type[_Wrong]:
    """One in which a chunk starts elsewhere, by the length of the cache and that of the chunk."""
    return _with(start=lambda self, past, new: start(0 if past is None else past.length, new))


def _numbered(number: Callable[[int, int], int]) -> type[_Wrong]:
    """One whose layers are told other numbers, by the right one and how many there are."""

    def through(self: _Wrong, i: int, x: Tensor, past_kv: Cache) -> Tensor:
        return self.layers[i](x, past_kv, number(i, len(self.layers)))

    return _with(through=through)


def _all_on_the_first(self: _Wrong, number: int, x: Tensor, past_kv: Cache) -> Tensor:
    self.embedded = x if number == 0 else self.embedded
    return self.layers[number](self.embedded, past_kv, number)


def _unused(self: _Wrong, number: int, x: Tensor, past_kv: Cache) -> Tensor:
    self.layers[number](x, past_kv, number)
    return x


def _normed(self: _Wrong, number: int, x: Tensor, past_kv: Cache) -> Tensor:
    return self.norm(self.layers[number](x, past_kv, number))


def _layers(take: slice) -> type[_Wrong]:
    def through(self: _Wrong, number: int, x: Tensor, past_kv: Cache) -> Tensor:
        chosen = range(len(self.layers))[take]
        return self.layers[number](x, past_kv, number) if number in chosen else x

    return _with(through=through)


def _first_layer_cached(self: _Wrong, number: int, x: Tensor, past_kv: Cache) -> Tensor:
    return self.layers[number](x, past_kv if number == 0 else None, number)


START = "The first new token is at position past_kv.length, read before the layers run."
LAST = "Only the logits of the last position are returned. Return those of all positions."
HAND_ON = "Each layer needs past_kv, also while it is empty, and its number: layer(x, past_kv, i)."

WRONG_FORWARDS = [
    (
        _with(through=lambda self, number, x, past_kv: self.layers[number](x)),
        "Nothing gets into the cache, so each chunk sees only itself. " + HAND_ON,
    ),
    (
        _with(through=lambda self, number, x, past_kv: self.layers[number](x, past_kv)),
        "The layers are not told their numbers: all of them append to layer 0. " + HAND_ON,
    ),
    (_numbered(lambda i, layers: layers - 1 - i), "The layers' numbers are in reverse. " + HAND_ON),
    (
        _numbered(lambda i, layers: i + 1),
        "The layers' numbers start at 1; they should start at 0. " + HAND_ON,
    ),
    (
        _numbered(lambda i, layers: i - 1),
        "The layers' numbers start at -1; they should start at 0. " + HAND_ON,
    ),
    (_numbered(lambda i, layers: -i), "The layers' numbers are negative. " + HAND_ON),
    (_with(through=_first_layer_cached), "Only the first layer gets past_kv. " + HAND_ON),
    (
        _with(taken=lambda self, past_kv, rows: self.new_cache(rows)),
        "past_kv that is handed in is not used: a new cache is made in each call.",
    ),
    (_started(lambda length, new: 0), "Each chunk begins at position 0 again. " + START),
    (
        _started(lambda length, new: length + (length > 0)),
        "After a cache all positions are one too high. " + START,
    ),
    (_started(lambda length, new: length + 1), "All positions are one too high. " + START),
    (
        _with(start=lambda self, past, new: 0 if past is None else past.length + 1),
        "With a cache all positions are one too high. " + START,
    ),
    (
        _started(lambda length, new: max(length - 1, 0)),
        "After a cache all positions are one too low. " + START,
    ),
    (
        _started(lambda length, new: length + new if length else 0),
        "The new tokens are counted twice in their positions. " + START,
    ),
    (
        _started(lambda length, new: new if length else 0),
        "A chunk starts at its own length, not at the cache's. " + START,
    ),
    (
        _with(enter=lambda self, input_ids, start: self.token_embedding(input_ids)),
        "The positions are not added: use self.embed(input_ids, start).",
    ),
    (
        _with(through=_unused),
        "What the layers return is not used: x = layer(x, past_kv, i).",
    ),
    (
        _with(through=_all_on_the_first),
        "Every layer gets the embeddings: each layer's output goes into the next.",
    ),
    (
        _with(through=lambda self, i, x, past_kv: x + self.layers[i](x, past_kv, i)),
        "x is added to each layer's output, which holds it already: x = layer(x, past_kv, i).",
    ),
    (
        _with(through=_normed, finish=lambda self, x: self.output_projection(x)),
        "self.norm comes once, after the last layer.",
    ),
    (_layers(slice(1)), "Only the first layer is used: each layer's output goes into the next."),
    (_layers(slice(-1)), "The last layer is not used."),
    (_layers(slice(1, None)), "The first layer is not used."),
    (
        _with(finish=lambda self, x: self.output_projection(x)),
        "The last norm is missing: self.norm comes before the output projection.",
    ),
    (
        _with(finish=lambda self, x: self.norm(x)),
        "The output projection is missing: it makes logits of what self.norm returns.",
    ),
    (
        _with(finish=lambda self, x: self.output_projection(self.norm(x))[:, -1]),
        LAST,
    ),
    (_with(finish=lambda self, x: self.output_projection(self.norm(x))[:, -1:]), LAST),
    (
        _with(finish=lambda self, x: self.output_projection(self.norm(x)).softmax(-1)),
        "The logits have gone through a softmax. That is the sampler's work.",
    ),
]
