"""Where keys and values are kept, and as what: the numbers that come back are the same."""

import io
import mmap
import tempfile
import zlib

import numpy as np
import torch

from .parts import Joined, Recoded, Repacked, no_pairs, right


def as_bytes(tensor):
    """The bytes of a tensor of any dtype as a NumPy array, which knows no bfloat16."""
    return tensor.cpu().contiguous().view(torch.uint8).numpy()


@right
class OffloadedToCpu(Recoded):
    """Between calls everything is in the CPU's memory; each use brings it to the device."""

    def encode(self, tensor):
        return tensor.cpu()

    def decode(self, kept):
        return kept.to(self.device)


@right
class NumpyArrays(Recoded):
    """Kept as NumPy arrays, copied on the way there and back."""

    def encode(self, tensor):
        return as_bytes(tensor).copy()

    def decode(self, kept):
        return torch.from_numpy(kept.copy()).view(self.dtype).to(self.device)


@right
class PythonLists(Recoded):
    """Kept as lists of Python floats."""

    def encode(self, tensor):
        return tensor.tolist()

    def decode(self, kept):
        tensor = torch.tensor(kept, dtype=torch.float64, device="cpu")
        return tensor.to(device=self.device, dtype=self.dtype)


@right
class SavedBytes(Repacked):
    """Kept as what torch.save writes: the cache is a bytes object."""

    def pack(self, pairs):
        file = io.BytesIO()
        torch.save([[k.detach().clone(), v.detach().clone()] for k, v in pairs], file)
        return file.getvalue()

    def unpack(self, past_kv):
        pairs = torch.load(io.BytesIO(past_kv), map_location=self.device, weights_only=True)
        return [tuple(pair) for pair in pairs]


@right
class Zipped(Recoded):
    """Kept compressed by zlib, which loses nothing."""

    def encode(self, tensor):
        return tensor.shape, zlib.compress(as_bytes(tensor).tobytes(), 1)

    def decode(self, kept):
        shape, data = kept
        flat = torch.frombuffer(bytearray(zlib.decompress(data)), dtype=self.dtype)
        return flat.view(shape).to(self.device)


@right
class MemoryMapped(Recoded):
    """Kept in temporary files that are mapped into memory."""

    def encode(self, tensor):
        data = as_bytes(tensor)
        with tempfile.TemporaryFile() as file:
            kept = np.memmap(file, mode="w+", shape=data.shape, dtype=data.dtype)
        kept[:] = data
        return kept

    def decode(self, kept):
        return torch.from_numpy(np.array(kept)).view(self.dtype).to(self.device)


@right
class AnonymousMap:
    """All keys and values of a cache lie in one anonymous memory map, by position."""

    def __init__(self, model, batch_size):
        self.batch_size, self.device, self.length = batch_size, model.device, 0
        shape = (model.num_layers, 2, model.max_seq_len, batch_size, model.num_heads, model.d_head)
        size = model.dtype.itemsize * torch.Size(shape).numel()
        self.kept = torch.frombuffer(mmap.mmap(-1, size), dtype=model.dtype).view(shape)

    def append(self, layer, k, v):
        if layer == 0:
            self.length += k.size(2)
        start = self.length - k.size(2)
        for kept, tensor in zip(self.kept[layer], (k, v), strict=True):
            kept[start : self.length] = tensor.detach().permute(2, 0, 1, 3)
        return self.kept[layer, :, : self.length].permute(0, 2, 3, 1, 4).to(self.device)

    def truncate(self, length):
        self.length = length


@right
class Sparse(Recoded):
    """Kept as sparse tensors."""

    def encode(self, tensor):
        return tensor.to_sparse()

    def decode(self, kept):
        return kept.to_dense()


@right
class OneComplexTensor(Repacked):
    """Keys are the real part, values the imaginary part of one complex tensor per layer."""

    def pack(self, pairs):
        return [torch.complex(k.double(), v.double()) for k, v in pairs]

    def unpack(self, past_kv):
        return [(kept.real.to(self.dtype), kept.imag.to(self.dtype)) for kept in past_kv]


@right
class TwoHalves(Recoded):
    """Kept as a float32 and the float32 of what that leaves over: 48 bits of a float64."""

    def encode(self, tensor):
        high = tensor.float()
        return high, (tensor - high.to(tensor.dtype)).float()

    def decode(self, kept):
        high, low = (part.double() for part in kept)
        return (high + low).to(self.dtype)


@right
class KeysTransposed(Repacked):
    """Keys are kept as the product needs them, (B, H, d, K)."""

    def pack(self, pairs):
        return [(k.transpose(2, 3).contiguous(), v) for k, v in pairs]

    def unpack(self, past_kv):
        return [(k.transpose(2, 3), v) for k, v in past_kv]


@right
class KeysAndValuesFused(Repacked):
    """Keys and values of a layer are kept side by side in one tensor (B, H, K, 2d)."""

    def pack(self, pairs):
        return [torch.cat(pair, dim=3) for pair in pairs]

    def unpack(self, past_kv):
        return [kept.chunk(2, dim=3) for kept in past_kv]


@right
class HeadsLast(Recoded):
    """Kept as (B, K, d, H), the heads in the last dimension."""

    def encode(self, tensor):
        return tensor.permute(0, 2, 3, 1).contiguous()

    def decode(self, kept):
        return kept.permute(0, 3, 1, 2)


@right
class RowsLast(Recoded):
    """Kept as (K, H * d, B), the positions first and the rows of the batch last."""

    def encode(self, tensor):
        return tensor.permute(2, 1, 3, 0).flatten(1, 2).contiguous()

    def decode(self, kept):
        return kept.unflatten(1, (self.num_heads, self.d_head)).permute(3, 1, 0, 2)


@right
class Float32Kept(Recoded):
    """Kept as float32 whatever the model's dtype is: exact in a float32 model only."""

    exact_in = torch.float32

    def encode(self, tensor):
        return tensor.float()

    def decode(self, kept):
        return kept.to(self.dtype)


@right
class FiniteOnly:
    """The cache asserts that what comes in is finite."""

    def __init__(self, model, batch_size):
        self.batch_size = batch_size
        self.store = Joined(no_pairs(model, batch_size))

    @property
    def length(self):
        return self.store.pairs[0][0].size(2)

    def append(self, layer, k, v):
        assert k.isfinite().all() and v.isfinite().all()
        return self.store.append(layer, k, v)
