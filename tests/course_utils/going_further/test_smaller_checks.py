"""The checks of smaller caches (chapter 09): what they refuse, and say, and what they accept."""

import math

import pytest
import torch

from course_utils.going_further.smaller import checks
from course_utils.going_further.smaller.eviction import victim
from course_utils.going_further.smaller.grouped_heads import pool_heads
from course_utils.going_further.smaller.packed_numbers import pack, unpack
from course_utils.going_further.smaller.window import WindowCache, band_mask

pytestmark = pytest.mark.authors


def in_place(x, h, g):
    return pool_heads(x.mul_(1.5), h, g)


def halving(x, h, g):
    """The mean of two, then of that and the next: right for groups of two."""
    found = []
    for group in x.view(g, h // g, -1, x.size(1)):
        mean = group[0]
        for head in group[1:]:
            mean = (mean + head) / 2
        found.append(mean)
    return torch.cat(found)


def into_zeros(x, h, g):
    found = torch.zeros(x.size(0) * g // h, x.size(1))
    found[:] = pool_heads(x, h, g)
    return found


def d_head_from_columns(x, h, g):
    d_head = x.size(1) // h
    return x.view(g, -1, d_head, x.size(1)).mean(1).flatten(0, 1)


def pairs_only(x, h, g):
    heads = x.view(h, -1, x.size(1))
    return torch.cat([(heads[i] + heads[i + 1]) / 2 for i in range(0, h, 2)])


POOLS = {
    "sums": (lambda x, h, g: pool_heads(x, h, g) * (h // g), "These are sums"),
    "far apart": (
        lambda x, h, g: x.view(h // g, g, -1, x.size(1)).mean(0).flatten(0, 1),
        "far apart were pooled",
    ),
    "first": (
        lambda x, h, g: x.view(g, h // g, -1, x.size(1))[:, 0].flatten(0, 1),
        "the first head of each group",
    ),
    "last": (lambda x, h, g: x.view(g, h // g, -1, x.size(1))[:, -1].flatten(0, 1), "expected"),
    "rows": (
        lambda x, h, g: x.view(x.size(0) * g // h, -1, x.size(1)).mean(1),
        "belong to one head",
    ),
    "every nth row": (lambda x, h, g: x[:: h // g].clone(), "expected"),
    "columns": (lambda x, h, g: pool_heads(x.T.contiguous(), h, g).T, "raised RuntimeError"),
    "still four": (
        lambda x, h, g: pool_heads(x, h, g).repeat_interleave(h // g, 0),
        "has shape",
    ),
    "unflattened": (lambda x, h, g: x.view(g, h // g, -1, x.size(1)).mean(1), "has shape"),
    "wrong dimension": (lambda x, h, g: x.view(g, h // g, -1, x.size(1)).mean(0), "has shape"),
    "nothing": (lambda x, h, g: None, "returns nothing"),
    "a list": (lambda x, h, g: list(pool_heads(x, h, g)), "a list, expected a torch.Tensor"),
    "in place": (in_place, "changes a tensor that came in"),
    "largest": (lambda x, h, g: x.view(g, h // g, -1, x.size(1)).amax(1).flatten(0, 1), "expected"),
    "median": (
        lambda x, h, g: x.view(g, h // g, -1, x.size(1)).median(1)[0].flatten(0, 1),
        "expected",
    ),
    "over groups": (lambda x, h, g: pool_heads(x, h, g) * (h // g) / g, "expected"),
    "over heads": (lambda x, h, g: pool_heads(x, h, g) * (h // g) / h, "expected"),
    "halving": (halving, "expected"),
    "float32": (into_zeros, "has dtype torch.float32"),
    "to float32": (lambda x, h, g: pool_heads(x.float(), h, g).to(x.dtype), "expected"),
    "d_head from columns": (d_head_from_columns, "shape|raised"),
    "pairs only": (pairs_only, "has shape|raised"),
    "order of groups": (
        lambda x, h, g: x.view(g, h // g, -1, x.size(1)).mean(1).flip(0).flatten(0, 1),
        "expected",
    ),
    "device": (
        lambda x, h, g: torch.zeros(x.size(0) * g // h, x.size(1), dtype=x.dtype).copy_(
            pool_heads(x, h, g)
        ),
        "device",
    ),
}


def positions(num_queries, num_keys, device=None):
    last = torch.arange(num_keys - num_queries, num_keys, device=device)
    return last[:, None], torch.arange(num_keys, device=device)


def band_with(sees):
    def wrong(num_queries, num_keys, window, sinks=0, device=None):
        return sees(*positions(num_queries, num_keys, device), window, sinks)

    return wrong


def no_device(num_queries, num_keys, window, sinks=0, device=None):
    return band_mask(num_queries, num_keys, window, sinks)


def half_a_device(num_queries, num_keys, window, sinks=0, device=None):
    query, key = positions(num_queries, num_keys)[0], positions(1, num_keys, device)[1]
    return (key <= query) & ((key > query - window) | (key < sinks))


def triangles(num_queries, num_keys, window, sinks=0, device=None):
    """Right but for its device."""
    square = torch.ones(num_keys, num_keys, dtype=torch.bool)
    band = square.tril() & square.triu(1 - window)
    band[:, :sinks] |= square.tril()[:, :sinks]
    return band[num_keys - num_queries :]


def within(q, k, w):
    return (k <= q) & (k > q - w)


BANDS = {
    "one more": (band_with(lambda q, k, w, s: (k <= q) & ((k >= q - w) | (k < s))), "it is 3 back"),
    "one less": (
        band_with(lambda q, k, w, s: (k <= q) & ((k > q - w + 1) | (k < s))),
        "the last 3, its own among them",
    ),
    "no sinks": (band_with(lambda q, k, w, s: within(q, k, w)), "are sinks"),
    "sinks of the future": (
        band_with(lambda q, k, w, s: within(q, k, w) | (k < s)),
        "nobody sees what comes later",
    ),
    "not causal": (band_with(lambda q, k, w, s: (k > q - w) | (k < s)), "nobody sees"),
    "both ways": (
        band_with(lambda q, k, w, s: ((q - k).abs() < w) | ((k < s) & (k <= q))),
        "nobody sees",
    ),
    "no offset": (
        lambda nq, nk, w, s=0, device=None: band_mask(nk, nk, w, s, device)[:nq],
        "Are the queries the last positions?",
    ),
    "one sink too many": (
        lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s + 1, device),
        "must not",
    ),
    "square": (lambda nq, nk, w, s=0, device=None: band_mask(nk, nk, w, s), "has shape"),
    "turned round": (lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s).T, "nobody sees"),
    "of heads": (lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s)[None], "has shape"),
    "floats": (lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s).float(), "torch.bool"),
    "ones": (lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s).long(), "torch.bool"),
    "inverted": (lambda nq, nk, w, s=0, device=None: ~band_mask(nq, nk, w, s), "is inverted"),
    "sinks in the window": (
        band_with(lambda q, k, w, s: (k <= q) & ((k > q - w + s) | (k < s))),
        "expected|must",
    ),
    "window behind sinks": (
        band_with(lambda q, k, w, s: (k <= q) & ((k - s > q - s - w) & (k >= s) | (k < s - 1))),
        "are sinks|must",
    ),
    "upside down": (
        lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s).flip(0),
        "nobody sees|must",
    ),
    "a window of one sees nothing": (
        band_with(lambda q, k, w, s: (within(q, k, w) & (w > 1)) | ((k < s) & (k <= q))),
        "the last 1",
    ),
    "sinks up to the window": (
        band_with(lambda q, k, w, s: within(q, k, w) | ((k < min(s, w)) & (k <= q))),
        "are sinks",
    ),
    "sinks when they are few": (
        lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s if s < nk else 0, device),
        "are sinks",
    ),
    "device": (no_device, "device"),
    "half a device": (half_a_device, "device"),
    "triangles": (triangles, "device"),
    "one sink always": (
        lambda nq, nk, w, s=1, device=None: band_mask(nq, nk, w, s, device),
        "must not",
    ),
    "nothing": (lambda nq, nk, w, s=0, device=None: None, "None"),
    "lists": (lambda nq, nk, w, s=0, device=None: band_mask(nq, nk, w, s).tolist(), "list"),
    "no parameter for the device": (lambda nq, nk, w, s=0: band_mask(nq, nk, w, s), "device"),
}


class Cache(WindowCache):
    """The course's, with what may go wrong as methods."""

    def __init__(self, model, batch_size, window, sinks=0):
        super().__init__(model, batch_size, window, sinks)

    def at(self, layer):
        return self.lengths[layer]

    def window(self, layer):
        return self.windows[layer]

    def slot(self, position, window):
        if position < self.sinks:
            return position
        return self.sinks + (position - self.sinks) % window

    def put(self, layer, slot, k, v):
        self.keys[layer][:, :, slot] = k[:, :, 0]
        self.values[layer][:, :, slot] = v[:, :, 0]

    def count(self, layer, position):
        self.lengths[layer] = position + 1

    def filled(self, position, window):
        return min(position + 1, self.sinks + window)

    def append(self, layer, k, v):
        if k.size(2) != 1:
            raise ValueError("one at a time")
        position, window = self.at(layer), self.window(layer)
        self.put(layer, self.slot(position, window), k, v)
        self.count(layer, position)
        return self.found(layer, self.filled(position, window), k, v)

    def found(self, layer, filled, k, v):
        return self.keys[layer][:, :, :filled], self.values[layer][:, :, :filled]


def ring(**methods):
    return type("WindowCache", (Cache,), methods)


class NoRing(WindowCache):
    def append(self, layer, k, v):
        self.keys[layer] = torch.cat([self.keys[layer][:, :, : self.lengths[layer]], k], 2)
        self.values[layer] = torch.cat([self.values[layer][:, :, : self.lengths[layer]], v], 2)
        self.lengths[layer] += 1
        return self.keys[layer], self.values[layer]


class KeepsAll(Cache):
    """Returns what it should, and forgets nothing."""

    def append(self, layer, k, v):
        if k.size(2) != 1:
            raise ValueError("one at a time")
        at = self.lengths[layer]
        pair = self.keys[layer][:, :, :at], self.values[layer][:, :, :at]
        pair = [torch.cat(each, 2) for each in zip(pair, (k, v), strict=True)]
        self.keys[layer], self.values[layer] = pair
        self.lengths[layer] += 1
        kept = [p for p in range(at + 1) if p < self.sinks or p > at - self.windows[layer]]
        return pair[0][:, :, kept], pair[1][:, :, kept]


class OneRoomForAll(Cache):
    room = {}

    def __init__(self, model, batch_size, window, sinks=0):
        super().__init__(model, batch_size, window, sinks)
        shapes = str([(keys.shape, keys.dtype) for keys in self.keys])
        self.keys, self.values = self.room.setdefault(shapes, (self.keys, self.values))


class OneTooMany(WindowCache):
    def __init__(self, model, batch_size, window, sinks=0):
        super().__init__(model, batch_size, window, sinks)
        more = [torch.cat([t, t[:, :, :1]], 2) for t in self.keys]
        self.keys, self.values = more, [torch.empty_like(t) for t in more]
        self.windows = [window + 1 for window in self.windows]


class InTheirOwnPlace(Cache):
    """Right, but not in `self.keys`, so that `reorder` does not reach it."""

    def __init__(self, model, batch_size, window, sinks=0):
        super().__init__(model, batch_size, window, sinks)
        self.hidden = [t.clone() for t in self.keys], [t.clone() for t in self.values]

    def put(self, layer, slot, k, v):
        for kept, new in zip(self.hidden, (k, v), strict=True):
            kept[layer][:, :, slot] = new[:, :, 0]

    def found(self, layer, filled, k, v):
        return self.hidden[0][layer][:, :, :filled], self.hidden[1][layer][:, :, :filled]


class LengthOfWhatIsKept(WindowCache):
    @property
    def length(self):
        return min(self.lengths[0], self.sinks + self.windows[0])


def stored(which):
    """`put` that stores something else than k and v."""

    def put(self, layer, slot, k, v):
        Cache.put(self, layer, slot, *which(k, v))

    return put


def one_count(self, layer, position):
    self.lengths = [position + 1] * len(self.lengths)


def counting(number):
    """`count` that sets another number than how many went in."""

    def count(self, layer, position):
        room = self.sinks + self.windows[layer]
        self.lengths[layer] = number(position + 1, room)

    return count


def only_keys(self, layer, slot, k, v):
    self.keys[layer][:, :, slot] = k[:, :, 0]


def only_first_row(self, layer, slot, k, v):
    self.keys[layer][0, :, slot], self.values[layer][0, :, slot] = k[0, :, 0], v[0, :, 0]


def new_only(self, layer, filled, k, v):
    return k, v


def squeezed(self, layer, slot, k, v):
    self.keys[layer][:, :, slot], self.values[layer][:, :, slot] = k.squeeze(), v.squeeze()


def changing(self, layer, slot, k, v):
    Cache.put(self, layer, slot, k.mul_(1.5), v)


def rolled(self, layer, k, v):
    """The oldest is pushed out at the front, sinks and all."""
    keys, values, at = self.keys[layer], self.values[layer], self.lengths[layer]
    if at >= keys.size(2):
        keys, values = keys.roll(-1, 2), values.roll(-1, 2)
        at = keys.size(2) - 1
    keys[:, :, at], values[:, :, at] = k[:, :, 0], v[:, :, 0]
    self.keys[layer], self.values[layer] = keys, values
    self.lengths[layer] += 1
    return keys[:, :, : at + 1], values[:, :, : at + 1]


class NoSlot(WindowCache):
    def append(self, layer, k, v):
        self.keys[layer][:, :, 0] = k.transpose(1, 3)
        return self.keys[layer], self.values[layer]


CACHES = {
    "no ring": (NoRing, "older than the window"),
    "keeps all": (KeepsAll, "S \\+ W slots in each layer"),
    "empty slots too": (
        ring(found=lambda self, layer, n, k, v: (self.keys[layer], self.values[layer])),
        "empty slots",
    ),
    "sinks overwritten": (ring(slot=lambda self, t, w: t % (self.sinks + w)), "holds positions"),
    "no sinks": (ring(slot=lambda self, t, w: t % w), "nothing was stored in it"),
    "ring from zero": (
        ring(slot=lambda self, t, w: t if t < self.sinks else self.sinks + t % w),
        "ring begins at slot `sinks`",
    ),
    "ring at zero": (
        ring(slot=lambda self, t, w: t if t < self.sinks else (t - self.sinks) % w),
        "nothing was stored in it",
    ),
    "last slot always": (
        ring(slot=lambda self, t, w: min(t, self.sinks + w - 1)),
        "holds positions",
    ),
    "values of another": (
        ring(put=stored(lambda k, v: (k, v + 1))),
        "not its value",
    ),
    "values not stored": (ring(put=only_keys), "not its value"),
    "keys for values": (ring(put=stored(lambda k, v: (k, k))), "not its value"),
    "exchanged": (ring(put=stored(lambda k, v: (v, k))), "values where keys"),
    "returned the wrong way round": (
        ring(found=lambda self, *a: Cache.found(self, *a)[::-1]),
        "values where keys",
    ),
    "length of the kept": (LengthOfWhatIsKept, "length is"),
    "one slot more": (OneTooMany, "older than the window"),
    "all layers count together": (ring(count=one_count), "With one layer it is right"),
    "the count of layer 0": (ring(at=lambda self, layer: self.lengths[0]), "layer 1"),
    "the count of the cache": (ring(at=lambda self, layer: self.length), "layer 1"),
    "not counted": (ring(count=lambda self, layer, t: None), "lengths"),
    "counted twice": (ring(count=counting(lambda n, room: n + 1)), "lengths is"),
    "counted to the end": (ring(count=counting(min)), "counts all"),
    "counted within the ring": (ring(count=counting(lambda n, room: n % room)), "counts all"),
    "window of layer 0": (ring(window=lambda self, layer: self.windows[0]), "layer 1"),
    "window of the last layer": (ring(window=lambda self, layer: self.windows[-1]), "its own"),
    "without the newest": (ring(filled=lambda self, t, w: min(t, self.sinks + w)), "expected"),
    "window only": (ring(filled=lambda self, t, w: min(t + 1, w)), "expected"),
    "new only": (ring(found=new_only), "only the new one"),
    "one tensor": (ring(found=lambda self, *a: Cache.found(self, *a)[0]), "expected keys, values"),
    "nothing": (ring(found=lambda self, *a: None), "NoneType"),
    "first row only": (ring(put=only_first_row), "row"),
    "squeezed": (ring(put=squeezed), "raised"),
    "float32": (
        ring(put=stored(lambda k, v: (k.float(), v.float()))),
        "rounded",
    ),
    "changed": (ring(put=changing), "changed"),
    "rolled": (ring(append=rolled), "holds positions"),
    "one room for all": (OneRoomForAll, "Alone it is right"),
    "not where reorder looks": (InTheirOwnPlace, "Not reordered it is right"),
    "several at once": (
        ring(append=lambda self, layer, k, v: WindowCache.append(self, layer, k[:, :, :1], v)),
        "two positions at once",
    ),
    "no slot": (NoSlot, "raised RuntimeError at `self.keys"),
}


def halves(codes, bits):
    per = 8 // bits
    parts = codes.long().unflatten(-1, (per, -1)) << torch.arange(0, 8, bits)[:, None]
    return parts.sum(-2).to(torch.uint8)


def no_mask(packed, bits):
    return (packed[..., None] >> torch.arange(0, 8, bits)).flatten(-2)


def for_two_dimensions(codes, bits):
    per = 8 // bits
    packed = torch.zeros_like(codes[:, ::per])
    for i in range(per):
        packed |= codes[:, i::per] << (i * bits)
    return packed


def shifting_in_place(codes, bits):
    per = 8 // bits
    for i in range(per):
        codes[..., i::per] <<= i * bits
    return codes.unflatten(-1, (-1, per)).sum(-1).to(torch.uint8)


def viewed(codes, bits):
    shifts = torch.arange(0, 8, bits, device=codes.device)
    packed = (codes.view(-1, 8 // bits) << shifts).sum(-1).to(torch.uint8)
    return packed.view(*codes.shape[:-1], -1)


def unpack_with(shift, mask, at=-2):
    def wrong(packed, bits):
        shifts = torch.arange(0, 8, bits, device=packed.device)
        return mask(shift(packed[..., None], shifts), bits).flatten(at)

    return wrong


def right_shift(x, n):
    return x >> n


def low_bits(x, bits):
    return x & (2**bits - 1)


def shifts_on_cpu(codes, bits):
    shifts = torch.arange(0, 8, bits)
    return (codes.unflatten(-1, (-1, 8 // bits)) << shifts).sum(dim=-1).to(torch.uint8)


PACKS = {
    "not packed": ((lambda c, b: c, lambda p, b: p), "has shape"),
    "high bits first": ((lambda c, b: pack(c.flip(-1), b).flip(-1), unpack), "not in the highest"),
    "halves": ((halves, unpack), "neighbours"),
    "four bits always": ((lambda c, b: pack(c, 4), lambda p, b: unpack(p, 4)), "shape|raised"),
    "no shift": (
        (lambda c, b: c.unflatten(-1, (-1, 8 // b)).sum(-1).to(torch.uint8), unpack),
        "not shifted",
    ),
    "shifted by one": (
        (
            lambda c, b: (c.unflatten(-1, (-1, 8 // b)) << torch.arange(8 // b)).sum(-1).byte(),
            unpack,
        ),
        "expected",
    ),
    "shifted down": (
        (
            lambda c, b: (c.unflatten(-1, (-1, 8 // b)) >> torch.arange(0, 8, b)).sum(-1).byte(),
            unpack,
        ),
        "expected",
    ),
    "wide numbers": ((lambda c, b: pack(c, b).long(), unpack), "8 bytes each"),
    "signed": ((lambda c, b: pack(c, b).to(torch.int8), unpack), "torch.int8"),
    "two of four": (
        (lambda c, b: c[..., ::2] | (c[..., 1::2] << 4) if b == 4 else pack(c, 4), unpack),
        "shape|raised",
    ),
    "rows first": ((for_two_dimensions, unpack), "raised|expected"),
    "in place": ((shifting_in_place, unpack), "changes a tensor that came in"),
    "viewed": ((viewed, unpack), "reshape"),
    "device": ((shifts_on_cpu, unpack), "device"),
    "flat": ((lambda c, b: pack(c, b).flatten(), unpack), "has shape"),
    "nothing": ((lambda c, b: None, unpack), "returns nothing"),
    "unpacked to nothing": ((pack, lambda p, b: None), "returns nothing"),
    "no mask": ((pack, no_mask), "keep only the lowest bits"),
    "mask of 4 bits": (
        (pack, unpack_with(right_shift, lambda x, b: x & 15)),
        "The lowest 4 bits are kept",
    ),
    "mask of bits": ((pack, unpack_with(right_shift, lambda x, b: x & b)), "expected"),
    "mask too wide": ((pack, unpack_with(right_shift, lambda x, b: x & 2**b)), "expected"),
    "shifted up": ((pack, unpack_with(lambda x, n: x << n, low_bits)), "expected"),
    "reversed": ((pack, lambda p, b: unpack(p, b).flip(-1)), "other way round|order"),
    "high codes first": (
        (pack, lambda p, b: unpack(p, b).unflatten(-1, (-1, 8 // b)).flip(-1).flatten(-2)),
        "highest bits first",
    ),
    "halves back": (
        (
            pack,
            lambda p, b: unpack(p, b).unflatten(-1, (-1, 8 // b)).transpose(-2, -1).flatten(-2),
        ),
        "neighbours",
    ),
    "floats": ((pack, lambda p, b: unpack(p, b).float()), "torch.float32"),
    "unflattened": (
        (pack, lambda p, b: unpack(p, b).unflatten(-1, (-1, 8 // b))),
        "has shape",
    ),
    "device back": (
        (pack, lambda p, b: low_bits(p[..., None] >> torch.arange(0, 8, b), b).flatten(-2)),
        "device",
    ),
    "bytes changed": ((pack, lambda p, b: unpack(p.bitwise_and_(127), b)), "changes a tensor"),
    "flattened from 2": (
        (pack, unpack_with(right_shift, low_bits, at=2)),
        "has shape|raised",
    ),
}


def filled_with(number):
    return lambda m, p: m.masked_fill(p, number).argmin(-1, keepdim=True)


def among_the_free(mass, protected):
    rows = (x.reshape(-1, mass.size(-1)) for x in (mass, protected))
    rows = zip(*rows, strict=True)
    found = torch.stack([row[~shield].argmin() for row, shield in rows])
    return found.view(*mass.shape[:-1], 1)


VICTIMS = {
    "protected too": (lambda m, p: m.argmin(-1, keepdim=True), "it is protected"),
    "most": (lambda m, p: m.masked_fill(p, -1).argmax(-1, keepdim=True), "most attention"),
    "most of all": (lambda m, p: m.argmax(-1, keepdim=True), "expected|protected"),
    "the other way round": (lambda m, p: victim(m, ~p), "it is protected"),
    "no dimension": (lambda m, p: victim(m, p)[..., 0], "keepdim"),
    "one for all": (lambda m, p: victim(m.flatten(), p.flatten()).expand(*m.shape[:-1], 1), "p"),
    "of the first row": (
        lambda m, p: victim(m, p).flatten()[:1].expand(*m.shape[:-1], 1),
        "expected",
    ),
    "first": (lambda m, p: torch.zeros_like(m[..., :1], dtype=torch.long), "expected|protected"),
    "first free": (lambda m, p: (~p).float().argmax(-1, keepdim=True), "expected"),
    "values": (lambda m, p: m.masked_fill(p, math.inf).amin(-1, keepdim=True), "torch.int64"),
    "int32": (lambda m, p: victim(m, p).int(), "torch.int64"),
    "zeroed": (filled_with(0.0), "0"),
    "times": (lambda m, p: (m * ~p).argmin(-1, keepdim=True), "0"),
    "filled with 1": (filled_with(1.0), "protected"),
    "filled with 99": (filled_with(99.0), "protected"),
    "filled with 1000": (filled_with(1e3), "protected"),
    "filled with a million": (filled_with(1e6), "protected"),
    "added 1000": (lambda m, p: (m + 1e3 * p).argmin(-1, keepdim=True), "protected|expected"),
    "filled with the largest": (
        lambda m, p: m.masked_fill(p, m.max().item()).argmin(-1, keepdim=True),
        "protected",
    ),
    "in place": (lambda m, p: m.masked_fill_(p, math.inf).argmin(-1, keepdim=True), "changes"),
    "place among the free": (among_the_free, "The index counts only"),
    "of the first dimension": (
        lambda m, p: m.masked_fill(p, math.inf).argmin(0, keepdim=True),
        "has shape",
    ),
    "in whole numbers": (
        lambda m, p: m.long().masked_fill(p, 10**9).argmin(-1, keepdim=True),
        "expected",
    ),
    "nothing": (lambda m, p: None, "returns nothing"),
}

CHECKS = {
    "pool_heads": (checks.check_pool_heads, POOLS),
    "band_mask": (checks.check_band_mask, BANDS),
    "window_cache": (checks.check_window_cache, CACHES),
    "pack": (lambda pair: checks.check_pack(*pair), PACKS),
    "victim": (checks.check_victim, VICTIMS),
}
WRONG = [(name, how) for name, (_, answers) in CHECKS.items() for how in answers]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "how"), WRONG)
def test_a_wrong_answer_is_told_why(name, how):
    check, answers = CHECKS[name]
    wrong, told = answers[how]
    with pytest.raises(AssertionError, match=told):
        check(wrong)


def by_parts(weight, num_heads, num_kv_heads):
    heads = weight.chunk(num_heads)
    size = num_heads // num_kv_heads
    groups = [heads[i : i + size] for i in range(0, num_heads, size)]
    return torch.cat([torch.stack(group).mean(0) for group in groups])


def by_a_matrix(weight, num_heads, num_kv_heads):
    """G x H: which heads are in which group, divided by their number."""
    size = num_heads // num_kv_heads
    groups = torch.eye(num_kv_heads, dtype=weight.dtype, device=weight.device) / size
    heads = weight.reshape(num_heads, -1)
    return (groups.repeat_interleave(size, 1) @ heads).reshape(-1, weight.size(1))


def row_by_row(weight, num_heads, num_kv_heads):
    d_head, size = len(weight) // num_heads, num_heads // num_kv_heads
    pooled = weight.new_zeros(num_kv_heads * d_head, weight.size(1))
    for row in range(len(weight)):
        group, place = row // d_head // size, row % d_head
        pooled[group * d_head + place] += weight[row]
    return pooled / size


def by_triangles(num_queries, num_keys, window, sinks=0, device=None):
    return triangles(num_queries, num_keys, window, sinks).to(device)


def cell_by_cell(num_queries, num_keys, window, sinks=0, device=None):
    mask = torch.zeros(num_queries, num_keys, dtype=torch.bool, device=device)
    for row in range(num_queries):
        position = num_keys - num_queries + row
        mask[row, : min(sinks, position + 1)] = True
        mask[row, max(0, position - window + 1) : position + 1] = True
    return mask


def by_where(num_queries, num_keys, window, sinks=0, device=None):
    query, key = positions(num_queries, num_keys, device)
    back = query - key
    near = torch.where(back < window, True, key < sinks)
    return torch.logical_and(back >= 0, near)


class ByConcatenation(WindowCache):
    """Keeps what it has in the order of the positions, and never more than it may."""

    def append(self, layer, k, v):
        if k.size(2) != 1:
            raise ValueError("one at a time")
        held = min(self.lengths[layer], self.sinks + self.windows[layer])
        pair = self.keys[layer][:, :, :held], self.values[layer][:, :, :held]
        pair = [torch.cat(each, 2) for each in zip(pair, (k, v), strict=True)]
        if held == self.sinks + self.windows[layer]:
            pair = [torch.cat([t[:, :, : self.sinks], t[:, :, self.sinks + 1 :]], 2) for t in pair]
        self.keys[layer], self.values[layer] = pair
        self.lengths[layer] += 1
        return tuple(pair)


class ByRolling(WindowCache):
    """The ring is turned, so that the newest is always in the last slot that is filled."""

    def append(self, layer, k, v):
        if k.size(2) > 1:
            raise ValueError("one at a time")
        at, room = self.lengths[layer], self.keys[layer].size(2)
        for kept, new in ((self.keys[layer], k), (self.values[layer], v)):
            if at >= room:
                kept[:, :, self.sinks :] = kept[:, :, self.sinks :].roll(-1, dims=2)
            kept[:, :, min(at, room - 1)] = new.squeeze(2)
        self.lengths[layer] = at + 1
        filled = min(at + 1, room)
        return [self.keys[layer].narrow(2, 0, filled), self.values[layer][..., :filled, :]]


class ByIndexCopy(WindowCache):
    def append(self, layer, k, v):
        if k.size(2) != 1:
            raise ValueError("one at a time")
        p, sinks = self.lengths[layer], self.sinks
        slot = p if p < sinks else sinks + (p - sinks) % self.windows[layer]
        place = torch.tensor([slot], device=k.device)
        self.keys[layer].index_copy_(2, place, k)
        self.values[layer].index_copy_(2, place, v)
        self.lengths[layer] += 1
        order = sorted(range(min(p + 1, sinks + self.windows[layer])), reverse=True)
        return self.keys[layer][:, :, order], self.values[layer][:, :, order]


def slices(codes, bits):
    packed = torch.zeros_like(codes[..., :: 8 // bits])
    for i in range(8 // bits):
        packed |= codes[..., i :: 8 // bits] << (i * bits)
    return packed


def by_powers(codes, bits):
    weights = torch.tensor([2 ** (i * bits) for i in range(8 // bits)], device=codes.device)
    return (codes.reshape(*codes.shape[:-1], -1, 8 // bits) * weights).sum(-1).byte()


def unpack_by_division(packed, bits):
    parts = [packed.long() // 2 ** (i * bits) % 2**bits for i in range(8 // bits)]
    return torch.stack(parts, dim=-1).reshape(*packed.shape[:-1], -1)


def unpack_slices(packed, bits):
    per = 8 // bits
    codes = packed.new_empty(*packed.shape[:-1], packed.size(-1) * per)
    for i in range(per):
        codes[..., i::per] = (packed >> (i * bits)) & (2**bits - 1)
    return codes


def by_sort(mass, protected):
    return torch.where(protected, torch.inf, mass).sort(dim=-1).indices[..., :1]


def last_of_the_least(mass, protected):
    """Of several that have received least, the last one."""
    flipped = mass.masked_fill(protected, torch.inf).flip(-1)
    return mass.size(-1) - 1 - flipped.argmin(-1, keepdim=True)


def row_by_row_victims(mass, protected):
    rows = (x.reshape(-1, mass.size(-1)).tolist() for x in (mass, protected))
    chosen = []
    for row, shield in zip(*rows, strict=True):
        chosen.append(min((m, i) for i, m in enumerate(row) if not shield[i])[1])
    return torch.tensor(chosen, device=mass.device).reshape(*mass.shape[:-1], 1)


RIGHT = [
    *((checks.check_pool_heads, (answer,)) for answer in (by_parts, by_a_matrix, row_by_row)),
    *((checks.check_band_mask, (answer,)) for answer in (by_triangles, cell_by_cell, by_where)),
    (checks.check_window_cache, (ByConcatenation,)),
    (checks.check_window_cache, (ByRolling,)),
    (checks.check_window_cache, (ByIndexCopy,)),
    (checks.check_pack, (slices, unpack_slices)),
    (checks.check_pack, (by_powers, unpack_by_division)),
    (checks.check_victim, (by_sort,)),
    (checks.check_victim, (last_of_the_least,)),
    (checks.check_victim, (row_by_row_victims,)),
    (checks.check_victim, (lambda m, p: (-m).masked_fill(p, -torch.inf).topk(1)[1],)),
]


@pytest.mark.parametrize(("check", "answers"), RIGHT, ids=lambda x: getattr(x, "__name__", None))
def test_right_answers_pass_when_written_another_way(check, answers):
    assert "right" in check(*answers)


def test_what_is_not_written_yet_stays_not_written():
    def stub(*_):
        raise NotImplementedError

    for name, (check, _) in CHECKS.items():
        with pytest.raises(NotImplementedError):
            check({"window_cache": ring(append=stub), "pack": (stub, stub)}.get(name, stub))
