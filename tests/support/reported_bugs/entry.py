"""How a wrong model gets into the collection, with the uses that show it wrong and right."""

from collections.abc import Callable
from dataclasses import dataclass

from course_utils.attention import MultiHeadAttention
from course_utils.transformer import DecoderOnlyTransformer

from .uses import Use, script


@dataclass(frozen=True)
class Report:
    """A model class, an allowed use that it gets wrong, and a cached one that it gets right."""

    model_class: type
    wrong: Use
    right: Use


PREFILL = script(6)
REPORTS: dict[str, Report] = {}


def reported(name: str, wrong: Use, right: Use = PREFILL, room: int = 24) -> Callable:
    """Enter a class: of a model, of its attention layers, or of its caches."""

    def enter(cls):
        model_class = model_of(cls)
        model_class.room = room
        REPORTS[name] = Report(model_class, wrong, right)
        return cls

    return enter


def model_of(cls: type) -> type:
    if issubclass(cls, DecoderOnlyTransformer):
        return cls
    if issubclass(cls, MultiHeadAttention):
        return with_attention(cls)
    return with_cache(cls)


def with_attention(attention_class: type) -> type:
    class Model(DecoderOnlyTransformer):
        __doc__ = attention_class.__doc__

        def __init__(self, vocab_size, d_model, *args, num_heads=1, **kwargs):
            super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kwargs)
            for layer in self.layers:
                layer.attention = attention_class(d_model, num_heads)

    return Model


def with_cache(cache_class: type) -> type:
    class Model(DecoderOnlyTransformer):
        __doc__ = cache_class.__doc__

        def new_cache(self, batch_size):
            return cache_class(self, batch_size)

    return Model
