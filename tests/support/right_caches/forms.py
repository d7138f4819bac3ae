"""What `past_kv` is: tuples, dicts, functions, objects of many kinds."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .parts import Joined, Repacked, check_room, cut, no_pairs, pick, right


@right
class TupleOfTensors(Repacked):
    """The cache is one flat tuple of all keys and values, a new one in each call."""

    def pack(self, pairs):
        return tuple(part for pair in pairs for part in pair)

    def unpack(self, past_kv):
        return list(zip(past_kv[::2], past_kv[1::2], strict=True))


@right
class ListOfPairs(Repacked):
    """The cache is a plain list of pairs, one for each layer; too long is an IndexError."""

    error = IndexError


@right
class DictOfNames(Repacked):
    """The cache is a dict from names to tensors, as a state dict is; too long is an assertion."""

    error = AssertionError

    def pack(self, pairs):
        keys = {f"{i}.k": k for i, (k, _) in enumerate(pairs)}
        return keys | {f"{i}.v": v for i, (_, v) in enumerate(pairs)}

    def unpack(self, past_kv):
        return [(past_kv[f"{i}.k"], past_kv[f"{i}.v"]) for i in range(self.num_layers)]


@dataclass(frozen=True)
class Frozen:
    keys: list[Tensor]
    values: list[Tensor]

    def truncate(self, length):
        return Frozen(*([t[:, :, :length] for t in part] for part in (self.keys, self.values)))

    def reorder(self, rows):
        return Frozen(*([t[rows] for t in part] for part in (self.keys, self.values)))


@right
class FrozenDataclass(Repacked):
    """The cache is a frozen dataclass, whose == on tensors has no truth value; all returns new."""

    def pack(self, pairs):
        return Frozen([k for k, _ in pairs], [v for _, v in pairs])

    def unpack(self, past_kv):
        return list(zip(past_kv.keys, past_kv.values, strict=True))


class Named(NamedTuple):
    keys: tuple
    values: tuple
    length: int


@right
class NamedTupleCache(Repacked):
    """The cache is a named tuple of keys, values and length."""

    def pack(self, pairs):
        keys, values = zip(*pairs, strict=True)
        return Named(keys, values, keys[0].size(2))

    def unpack(self, past_kv):
        return list(zip(past_kv.keys, past_kv.values, strict=True))


@right
class Closure(Repacked):
    """The cache is a function that gives a layer's keys and values."""

    def pack(self, pairs):
        return lambda layer: pairs[layer]

    def unpack(self, past_kv):
        return [past_kv(layer) for layer in range(self.num_layers)]


@right
class BareTensor(Repacked):
    """The cache is a single tensor (L, 2, B, H, K, d), which has no truth value."""

    def pack(self, pairs):
        return torch.stack([torch.stack(pair) for pair in pairs])

    def unpack(self, past_kv):
        return [tuple(pair) for pair in past_kv]


class Emptiable(list):
    def truncate(self, length):
        self[:] = cut(self, length)

    def reorder(self, rows):
        self[:] = pick(self, rows)

    def __bool__(self):
        return self[0][0].size(2) > 0


@right
class FalseWhenEmpty(Repacked):
    """The cache is a list with methods, and false as a truth value when it holds no position."""

    def pack(self, pairs):
        return Emptiable(pairs)


class Slotted:
    __slots__ = ("pairs",)

    def __init__(self, pairs):
        self.pairs = pairs

    def __eq__(self, other):
        raise TypeError("Caches cannot be compared.")

    __hash__ = None

    def truncate(self, length):
        self.pairs = cut(self.pairs, length)
        return self


@right
class SlotsOnly(Repacked):
    """The cache has no dict, hash, comparison or weak references; truncate returns itself."""

    def pack(self, pairs):
        return Slotted(pairs)

    def unpack(self, past_kv):
        return past_kv.pairs


@right
class ModuleAsCache(nn.Module):
    """The cache is a module, with its keys and values as buffers."""

    def __init__(self, model, batch_size):
        super().__init__()
        self.batch_size = batch_size
        for i, (k, v) in enumerate(no_pairs(model, batch_size)):
            self.register_buffer(f"k{i}", k)
            self.register_buffer(f"v{i}", v)

    @property
    def length(self):
        return self.k0.size(2)

    def append(self, layer, *new):
        for name, tensor in zip("kv", new, strict=True):
            name = f"{name}{layer}"
            setattr(self, name, torch.cat([getattr(self, name), tensor.detach()], dim=2))
        return getattr(self, f"k{layer}"), getattr(self, f"v{layer}")

    def reorder(self, rows):
        for name, tensor in list(self.named_buffers()):
            setattr(self, name, tensor[rows])
        self.batch_size = len(rows)


class OneLayer:
    def __init__(self, pair):
        self.pair = pair

    def append(self, layer, k, v):
        store = Joined([self.pair])
        self.pair = store.append(0, k, v)
        return self.pair


@right
class ObjectPerLayer(Repacked):
    """The cache is a list of objects, and each layer gets only its own."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        if not use_cache:
            return super().forward(input_ids)
        caches = past_kv or [OneLayer(pair) for pair in no_pairs(self, input_ids.size(0))]
        start = caches[0].pair[0].size(2)
        check_room(self, start, input_ids.size(1), RuntimeError)
        x = self.embed(input_ids, start)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer(x, cache)
        return self.output_projection(self.norm(x)), caches


class Ticket:
    """The right to go on from a cache, once."""

    def __init__(self, pairs):
        self.pairs = pairs

    def redeem(self):
        if self.pairs is None:
            raise RuntimeError("This cache has been used already.")
        pairs, self.pairs = self.pairs, None
        return pairs

    def truncate(self, length):
        return Ticket(cut(self.redeem(), length))

    def reorder(self, rows):
        return Ticket(pick(self.redeem(), rows))


@right
class SingleUse(Repacked):
    """Every call, truncate and reorder returns a new cache; the old one then raises an error."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        stored = past_kv.pairs[0][0].size(2) if past_kv and past_kv.pairs else 0
        check_room(self, stored, input_ids.size(1))
        return super().forward(input_ids, past_kv, use_cache)

    def pack(self, pairs):
        return Ticket(pairs)

    def unpack(self, past_kv):
        return past_kv.redeem()


@right
class KnowsItsModel(Repacked):
    """A cache goes on only with the model that made it, not with a copy of that."""

    def pack(self, pairs):
        return self, pairs

    def unpack(self, past_kv):
        maker, pairs = past_kv
        if maker is not self:
            raise RuntimeError("This cache belongs to another model.")
        return pairs


class Answer(NamedTuple):
    logits: Tensor
    past_kv: object


@right
class NamedAnswer(Repacked):
    """What `forward` returns is a named tuple."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        return Answer(*super().forward(input_ids, past_kv, use_cache))


class Node:
    """The positions of one call, and the node of the calls before."""

    def __init__(self, pairs, before=None):
        self.pairs, self.before = pairs, before
        self.start = before.length if before else 0
        self.length = self.start + pairs[0][0].size(2)

    def truncate(self, length):
        if self.before and length <= self.start:
            return self.before.truncate(length)
        return Node(cut(self.pairs, length - self.start), self.before)

    def all_pairs(self):
        store = Joined(self.before.all_pairs()) if self.before else Joined(cut(self.pairs, 0))
        return [store.append(layer, k, v) for layer, (k, v) in enumerate(self.pairs)]


@right
class LinkedCalls(Repacked):
    """Each call's positions are a node that points to the one before; truncate may cut a node."""

    def forward(self, input_ids, past_kv=None, use_cache=False):
        logits, pairs = super().forward(input_ids, past_kv, use_cache)
        if not use_cache:
            return logits, None
        new = input_ids.size(1)
        return logits, Node([(k[:, :, -new:], v[:, :, -new:]) for k, v in pairs], past_kv)

    def unpack(self, past_kv):
        return past_kv.all_pairs()
