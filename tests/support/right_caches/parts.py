"""What the right models are built on, and how they get into the collection.

Shapes: B batch, H num_heads, Q new positions, K all positions, d d_head.
"""

import copy
import re

import torch

from course_utils.kv_cache import check_rollback
from course_utils.transformer import DecoderOnlyTransformer

RIGHT: dict[str, type] = {}


def right(cls):
    """Enter a class, of a model or of its caches, under its own name in small letters."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
    RIGHT[name] = model_of(cls) if hasattr(cls, "append") else cls
    return cls


def model_of(cache_class):
    """The course's model with caches of this class."""

    class Model(DecoderOnlyTransformer):
        __doc__ = cache_class.__doc__

        def new_cache(self, batch_size):
            return cache_class(self, batch_size)

    Model.__name__ = f"{cache_class.__name__}Model"
    return Model


class WithAttention(DecoderOnlyTransformer):
    """The course's model with attention layers of the class `attention_class`."""

    attention_class: type

    def __init__(self, vocab_size, d_model, *args, num_heads=1, **kwargs):
        super().__init__(vocab_size, d_model, *args, num_heads=num_heads, **kwargs)
        for layer in self.layers:
            layer.attention = self.attention_class(d_model, num_heads)


def run(model, input_ids, start, store):
    """Logits of tokens that begin at position `start`; `store` is asked to append in each layer."""
    x = model.embed(input_ids, start)
    for i, layer in enumerate(model.layers):
        x = layer(x, store, i)
    return model.output_projection(model.norm(x))


def no_pairs(model, batch_size):
    """A pair (k, v) of no positions for each layer."""
    weight = model.token_embedding.weight
    empty = weight.detach().new_empty((batch_size, model.num_heads, 0, model.d_head))
    return [(empty, empty)] * model.num_layers


def check_room(model, stored, new, error=ValueError):
    if stored + new > model.max_seq_len:
        raise error(f"{stored} + {new} positions are more than {model.max_seq_len}.")


class Joined:
    """Pairs (k, v) of all layers, to which new positions are joined for the length of a call."""

    def __init__(self, pairs):
        self.pairs = list(pairs)

    def append(self, layer, k, v):
        old_k, old_v = self.pairs[layer]
        self.pairs[layer] = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        return self.pairs[layer]


class Repacked(DecoderOnlyTransformer):
    """Each call unpacks the cache into pairs (k, v), joins the new ones, and packs a new cache."""

    error = ValueError

    def pack(self, pairs):
        return pairs

    def unpack(self, past_kv):
        return past_kv

    def forward(self, input_ids, past_kv=None, use_cache=False):
        empty = past_kv is None
        pairs = no_pairs(self, input_ids.size(0)) if empty else self.unpack(past_kv)
        start = pairs[0][0].size(2)
        check_room(self, start, input_ids.size(1), self.error)
        store = Joined(pairs)
        logits = run(self, input_ids, start, store)
        return logits, self.pack(store.pairs) if use_cache else None


class Recoded(Repacked):
    """Every tensor of the cache is kept in another form: `encode` there, `decode` back."""

    def pack(self, pairs):
        return [(self.encode(k.detach()), self.encode(v.detach())) for k, v in pairs]

    def unpack(self, past_kv):
        return [(self.decode(k), self.decode(v)) for k, v in past_kv]


class Counted:
    """A cache that counts positions layer by layer; a subclass has `write` and `read`."""

    def __init__(self, model, batch_size):
        weight = model.token_embedding.weight
        self.batch_size = batch_size
        self.heads, self.room, self.d_head = model.num_heads, model.max_seq_len, model.d_head
        self.like = {"dtype": weight.dtype, "device": weight.device}
        self.lengths = [0] * model.num_layers
        self.prepare()

    def prepare(self):
        pass

    def zeros(self, positions):
        """Room for keys and values of one layer: (2, B, H, positions, d)."""
        return torch.zeros(2, self.batch_size, self.heads, positions, self.d_head, **self.like)

    @property
    def length(self):
        return self.lengths[0]

    def append(self, layer, k, v):
        start = self.lengths[layer]
        self.lengths[layer] = start + k.size(2)
        self.write(layer, start, k, v)
        return self.read(layer, self.lengths[layer])

    def truncate(self, length):
        check_rollback(length, self.length)
        self.lengths = [length] * len(self.lengths)


def twin(cache):
    """A copy of a GrowingCache of one row that goes its own way."""
    new = copy.copy(cache)
    new.reorder([0])
    return new


def pick(pairs, rows):
    return [(k[rows], v[rows]) for k, v in pairs]


def cut(pairs, length):
    check_rollback(length, pairs[0][0].size(2))
    return [(k[:, :, :length], v[:, :, :length]) for k, v in pairs]
