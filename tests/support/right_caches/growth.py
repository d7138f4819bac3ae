"""How a cache makes room: all at once, in steps, in rings, in pieces; and who may write when."""

import threading

import torch

from .parts import Counted, Joined, Repacked, no_pairs, right


class Buffered(Counted):
    """One buffer (2, B, H, positions, d) per layer, as long as `size_for` says."""

    def prepare(self):
        self.buffers = [self.zeros(0) for _ in self.lengths]

    def write(self, layer, start, k, v):
        end = start + k.size(2)
        buffer = self.buffers[layer]
        missing = self.size_for(end, buffer.size(3)) - buffer.size(3)
        if missing > 0:
            buffer = torch.cat([buffer, self.zeros(missing)], dim=3)
            self.buffers[layer] = buffer
        buffer[0, :, :, start:end], buffer[1, :, :, start:end] = k, v

    def read(self, layer, end):
        return self.buffers[layer][:, :, :, :end]

    def reorder(self, rows):
        self.buffers = [buffer[:, rows] for buffer in self.buffers]
        self.batch_size = len(rows)


@right
class Doubling(Buffered):
    """The buffer becomes twice as long when it is full."""

    def size_for(self, end, size):
        while size < end:
            size = max(1, 2 * size)
        return size


@right
class StepsOf8(Buffered):
    """The buffer grows by 8 positions when it is full."""

    def size_for(self, end, size):
        return -(-end // 8) * 8


@right
class ShrinksToo(Buffered):
    """The buffer is exactly as long as needed, and truncate gives memory back."""

    def size_for(self, end, size):
        return end

    def truncate(self, length):
        super().truncate(length)
        self.buffers = [buffer[:, :, :, :length].clone() for buffer in self.buffers]


@right
class PreallocatedPerLayer(Buffered):
    """Each layer gets room for max_seq_len positions the first time that it stores some."""

    def size_for(self, end, size):
        return self.room


@right
class FilledWithNan(Buffered):
    """Room for all positions; what has not been written or is forgotten is NaN."""

    def prepare(self):
        self.buffers = [self.zeros(self.room).fill_(torch.nan) for _ in self.lengths]

    def size_for(self, end, size):
        return size

    def truncate(self, length):
        super().truncate(length)
        for buffer in self.buffers:
            buffer[:, :, :, length:] = torch.nan


@right
class Ring(Counted):
    """A ring of max_seq_len slots whose first position is in slot 5."""

    def prepare(self):
        self.ring = [self.zeros(self.room) for _ in self.lengths]

    def slots(self, start, end):
        return (5 + torch.arange(start, end, device=self.like["device"])) % self.room

    def write(self, layer, start, k, v):
        self.ring[layer][:, :, :, self.slots(start, start + k.size(2))] = torch.stack([k, v])

    def read(self, layer, end):
        return self.ring[layer][:, :, :, self.slots(0, end)]

    def reorder(self, rows):
        self.ring = [kept[:, rows] for kept in self.ring]
        self.batch_size = len(rows)


@right
class PieceByPiece(Counted):
    """What each call brings is kept as it came, and joined only when it is read."""

    def prepare(self):
        self.pieces = [[] for _ in self.lengths]

    def write(self, layer, start, k, v):
        self.pieces[layer].append(torch.stack([k, v]))

    def read(self, layer, end):
        return torch.cat(self.pieces[layer], dim=3)

    def truncate(self, length):
        super().truncate(length)
        self.pieces = [[torch.cat(pieces, dim=3)[:, :, :, :length]] for pieces in self.pieces]


@right
class PositionByPosition(Counted):
    """Every position of every layer is a tensor of its own."""

    def prepare(self):
        self.kept = [[] for _ in self.lengths]

    def write(self, layer, start, k, v):
        self.kept[layer] += torch.stack([k, v]).unbind(3)

    def read(self, layer, end):
        return torch.stack(self.kept[layer], dim=3)

    def truncate(self, length):
        super().truncate(length)
        for kept in self.kept:
            del kept[length:]

    def reorder(self, rows):
        self.kept = [[tensor[:, rows] for tensor in kept] for kept in self.kept]
        self.batch_size = len(rows)


@right
class HotAndCold(Counted):
    """New positions go to a small store; in full fours they move on to a large one."""

    def prepare(self):
        self.cold = [self.zeros(0) for _ in self.lengths]
        self.hot = [self.zeros(0) for _ in self.lengths]

    def write(self, layer, start, k, v):
        hot = torch.cat([self.hot[layer], torch.stack([k, v])], dim=3)
        moving = hot.size(3) // 4 * 4
        self.cold[layer] = torch.cat([self.cold[layer], hot[:, :, :, :moving]], dim=3)
        self.hot[layer] = hot[:, :, :, moving:]

    def read(self, layer, end):
        return torch.cat([self.cold[layer], self.hot[layer]], dim=3)

    def truncate(self, length):
        super().truncate(length)
        for layer in range(len(self.lengths)):
            whole = self.read(layer, length)[:, :, :, :length]
            self.cold[layer], self.hot[layer] = whole.tensor_split([length // 4 * 4], dim=3)


@right
class LastFirst(Counted):
    """The newest position is kept first, and the order is turned round when it is read."""

    def prepare(self):
        self.kept = [self.zeros(0) for _ in self.lengths]

    def write(self, layer, start, k, v):
        self.kept[layer] = torch.cat([torch.stack([k, v]).flip(3), self.kept[layer]], dim=3)

    def read(self, layer, end):
        return self.kept[layer].flip(3)

    def truncate(self, length):
        self.kept = [kept[:, :, :, self.length - length :] for kept in self.kept]
        super().truncate(length)


@right
class WrittenInTheBackground(Counted):
    """A thread of its own joins new positions to the old ones; reading waits for it."""

    def prepare(self):
        self.kept = [self.zeros(0) for _ in self.lengths]

    def write(self, layer, start, k, v):
        new = torch.stack([k, v]).detach()
        self.writer = threading.Thread(target=self.join, args=(layer, new))
        self.writer.start()

    def join(self, layer, new):
        self.kept[layer] = torch.cat([self.kept[layer], new], dim=3)

    def read(self, layer, end):
        self.writer.join()
        return self.kept[layer]

    def reorder(self, rows):
        self.kept = [kept[:, rows] for kept in self.kept]
        self.batch_size = len(rows)

    def truncate(self, length):
        super().truncate(length)
        self.kept = [kept[:, :, :, :length] for kept in self.kept]


@right
class LockedCache:
    """Whoever uses the cache takes its lock: it cannot be copied."""

    def __init__(self, model, batch_size):
        self.batch_size, self.length, self.lock = batch_size, 0, threading.Lock()
        self.store = Joined(no_pairs(model, batch_size))

    def append(self, layer, k, v):
        with self.lock:
            k, v = self.store.append(layer, k, v)
            self.length = k.size(2)
        return k, v


@right
class LockedModel(Repacked):
    """Only one call at a time may run: the model holds a lock and cannot be copied."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()

    def forward(self, input_ids, past_kv=None, use_cache=False):
        with self.lock:
            return super().forward(input_ids, past_kv, use_cache)
