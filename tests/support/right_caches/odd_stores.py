"""Stores that nobody would think of."""

import sqlite3

import torch

from course_utils.transformer import DecoderOnlyTransformer

from .parts import Counted, Recoded, no_pairs, right

BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


@right
class HexadecimalText(Recoded):
    """The cache is text: every number in hexadecimal, which loses nothing."""

    def encode(self, tensor):
        shape = ",".join(map(str, tensor.shape))
        return f"{shape};" + " ".join(x.hex() for x in tensor.double().flatten().tolist())

    def decode(self, text):
        shape, numbers = text.split(";")
        values = [float.fromhex(x) for x in numbers.split()]
        tensor = torch.tensor(values, dtype=torch.float64).view(*map(int, shape.split(",")))
        return tensor.to(device=self.device, dtype=self.dtype)


@right
class DifferencesOfBits(Recoded):
    """Kept as the difference of each position's bits to those of the one before."""

    def encode(self, tensor):
        bits = tensor.contiguous().view(BITS[tensor.element_size()])
        return bits.diff(dim=2, prepend=torch.zeros_like(bits[:, :, :1]))

    def decode(self, steps):
        return steps.cumsum(2, dtype=steps.dtype).view(self.dtype)


@right
class EightBitsAndTheRest(Recoded):
    """Kept as whole numbers of 8 bits, a scale, and what that leaves over in float64."""

    def encode(self, tensor):
        exact = tensor.double()
        scale = exact.abs().amax() / 127 if tensor.numel() else exact.new_ones(())
        scale = scale.clamp(min=1e-30)
        whole = (exact / scale).round()
        return whole.to(torch.int8), scale, exact - whole * scale

    def decode(self, kept):
        whole, scale, rest = kept
        return (whole * scale + rest).to(self.dtype)


@right
class InADatabase(Counted):
    """Every position of a layer is a row in a table of a database in memory."""

    def prepare(self):
        self.base = sqlite3.connect(":memory:", check_same_thread=False)
        self.base.execute("create table kept (layer, place, bytes, primary key (layer, place))")

    def write(self, layer, start, k, v):
        both = torch.stack([k, v]).detach().double().cpu()
        rows = [
            (layer, start + i, both[:, :, :, i].contiguous().numpy().tobytes())
            for i in range(k.size(2))
        ]
        self.base.executemany("insert or replace into kept values (?, ?, ?)", rows)

    def read(self, layer, end):
        asked = "select bytes from kept where layer = ? and place < ? order by place"
        found = [
            torch.frombuffer(bytearray(b), dtype=torch.float64)
            for (b,) in self.rows(asked, layer, end)
        ]
        shape = (2, self.batch_size, self.heads, self.d_head)
        both = torch.stack([part.view(shape) for part in found], dim=3).to(**self.like)
        return both[0], both[1]

    def rows(self, asked, *values):
        return self.base.execute(asked, values).fetchall()


@right
class PiecesOfPowersOfTwo(Counted):
    """Pieces of 1, 2, 4, ... positions; two of the same size become one, as in a binary counter."""

    def prepare(self):
        self.pieces = [[] for _ in self.lengths]

    def write(self, layer, start, k, v):
        pieces = self.pieces[layer] = self.shortened(self.pieces[layer], start)
        for both in torch.stack([k, v]).split(1, dim=3):
            pieces.append(both)
            while len(pieces) > 1 and pieces[-1].size(3) >= pieces[-2].size(3):
                last = pieces.pop()
                pieces[-1] = torch.cat([pieces[-1], last], dim=3)

    def shortened(self, pieces, length):
        kept = []
        for piece in pieces:
            kept.append(piece[:, :, :, :length])
            length = max(length - piece.size(3), 0)
        return [piece for piece in kept if piece.size(3)]

    def read(self, layer, end):
        both = torch.cat(self.pieces[layer], dim=3)
        return both[0], both[1]


@right
class FirstTokenApart(Counted):
    """The first position has a place of its own; the others are in a buffer, the last one first."""

    def prepare(self):
        self.first = [self.zeros(1) for _ in self.lengths]
        self.rest = [self.zeros(self.room) for _ in self.lengths]

    def write(self, layer, start, k, v):
        for i, both in enumerate(torch.stack([k, v]).detach().unbind(3), start):
            if i == 0:
                self.first[layer][:, :, :, 0] = both
            else:
                self.rest[layer][:, :, :, -i] = both

    def read(self, layer, end):
        rest = self.rest[layer].flip(3)[:, :, :, : end - 1]
        both = torch.cat([self.first[layer], rest], dim=3)
        return both[0], both[1]


def storing(pairs):
    """Takes in a layer's new keys and values, and gives all; None begins the next call."""
    pairs, answer = list(pairs), None
    while True:
        layer, k, v = yield answer
        pairs[layer] = tuple(
            torch.cat(both, dim=2) for both in zip(pairs[layer], (k, v), strict=True)
        )
        answer = pairs[layer]


@right
class CacheIsAGenerator(DecoderOnlyTransformer):
    """What keeps the numbers is a generator, which is sent new ones and cannot be copied."""

    class Sending:
        def __init__(self, model, batch_size):
            self.batch_size, self.length = batch_size, 0
            self.kept = storing(no_pairs(model, batch_size))
            next(self.kept)

        def append(self, layer, k, v):
            if layer == 0:
                self.length += k.size(2)
            return self.kept.send((layer, k, v))

    def new_cache(self, batch_size):
        return self.Sending(self, batch_size)
