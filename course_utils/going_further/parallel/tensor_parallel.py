"""Tensor parallelism: one model in several processes, a part of every matrix in each (chapter 10).

All ranks run the same program on the same ids; what a rank lacks comes from adding up over all.
Source: Shoeybi et al., "Megatron-LM", 2019, section 3.

Shapes: B batch, T tokens, D d_model, F d_ff, V vocab_size, n ranks (`group.size`).
"""

import copy
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from ..transformer import ROOT, DecoderLayer, DecoderOnlyTransformer

T = TypeVar("T")
START = 300.0  # seconds: on a busy machine the last process may come much later than the first


class Call(NamedTuple):
    """One all-reduce of a rank: "sum", "max" or "min", bytes of the tensor, seconds it took."""

    op: str
    nbytes: int
    seconds: float


class Group:
    """Those who hold a model between them: which of them this one is, and how they add up.

    `calls` keeps a `Call` for every all-reduce.
    """

    def __init__(self, rank: int, size: int):
        self.rank, self.size = rank, size
        self.calls: list[Call] = []

    def all_reduce(self, tensor: Tensor, op: str = "sum") -> Tensor:
        """Element by element the sum ("max", "min") over all ranks, as a new tensor on each.

        All ranks must call it, in the same order, with the same shape. No gradient flows through.
        """
        start = time.perf_counter()
        result = self._combine(tensor.detach().clone(memory_format=torch.contiguous_format), op)
        self.calls.append(Call(op, tensor.nbytes, time.perf_counter() - start))
        return result

    def sizes(self) -> Counter:
        """How often an all-reduce of each operation and size in bytes was called."""
        return Counter((call.op, call.nbytes) for call in self.calls)

    def _combine(self, tensor: Tensor, op: str) -> Tensor:
        raise NotImplementedError

    def __deepcopy__(self, memo: dict) -> "Group":
        return self


class Processes(Group):
    """The processes that torchrun started, this one among them.

    Raises RuntimeError in a rank that waits for longer than `timeout` seconds for another. How long
    it takes until all have started does not count, up to `START` seconds.
    """

    OPS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}

    def __init__(self, timeout: float = 60.0):
        dist.init_process_group("gloo", timeout=timedelta(seconds=START))
        self.all = dist.new_group(timeout=timedelta(seconds=timeout))
        super().__init__(dist.get_rank(), dist.get_world_size())

    def _combine(self, tensor: Tensor, op: str) -> Tensor:
        dist.all_reduce(tensor, self.OPS[op], group=self.all)
        return tensor


class Meeting:
    """Where the ranks of `in_threads` meet: what each brought to each round, and who is gone."""

    def __init__(self, size: int):
        self.size = size
        self.rounds: dict[int, dict[int, tuple[str, Tensor]]] = defaultdict(dict)
        self.gone: set[int] = set()
        self.changed = threading.Condition()

    def bring(self, number: int, rank: int, op: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """What all ranks brought to a round, once they have. Raises RuntimeError if they cannot."""
        brought = self.rounds[number]
        with self.changed:
            brought[rank] = op, tensor
            self.changed.notify_all()
            self.changed.wait_for(lambda: len(brought) == self.size or self.gone - set(brought))
            missing = self.gone - set(brought)
        if missing:
            raise RuntimeError(
                f"Rank {rank} waits in its all-reduce number {number}, to which rank "
                f"{min(missing)} never comes: it has ended. All ranks must make the same calls in "
                "the same order. (Processes would wait here until their time-out.)"
            )
        return [brought[r] for r in range(self.size)]

    def leave(self, rank: int) -> None:
        with self.changed:
            self.gone.add(rank)
            self.changed.notify_all()


class Threads(Group):
    """The same among threads of one process: to learn with, and to test with."""

    OPS = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}

    def __init__(self, rank: int, meeting: Meeting):
        super().__init__(rank, meeting.size)
        self.meeting, self.number = meeting, 0

    def _combine(self, tensor: Tensor, op: str) -> Tensor:
        self.number += 1
        brought = self.meeting.bring(self.number, self.rank, op, tensor)
        kinds = {(theirs, tuple(part.shape)) for theirs, part in brought}
        if len(kinds) > 1:
            raise RuntimeError(
                f"All-reduce number {self.number} is not the same on all ranks: "
                f"{sorted(kinds)}. All ranks must bring the same operation and shape."
            )
        return self.OPS[op](torch.stack([part for _, part in brought]), dim=0)


def in_threads(size: int, program: Callable[[Group], T]) -> list[T]:
    """Run `program(group)` as `size` ranks, each a thread of this process; what each returned.

    An error in one rank ends the others too, and is raised here.
    """
    meeting = Meeting(size)

    def one(rank: int) -> T:
        try:
            return program(Threads(rank, meeting))
        finally:
            meeting.leave(rank)

    with ThreadPoolExecutor(size) as pool:
        ranks = [pool.submit(one, rank) for rank in range(size)]
    errors = [rank.exception() for rank in ranks if rank.exception()]
    consequences = [error for error in errors if "never comes" in str(error)]
    for error in [e for e in errors if e not in consequences] + consequences:
        raise error
    return [rank.result() for rank in ranks]


def cut(tensor: Tensor, group: Group, dim: int) -> Tensor:
    """This rank's of n equal parts of a tensor along `dim`, each in one piece.

    Raises ValueError if there are no n equal parts.
    """
    if tensor.size(dim) % group.size:
        raise ValueError(
            f"{tensor.size(dim)} cannot be cut into {group.size} equal parts (dimension {dim} of "
            f"{tuple(tensor.shape)}): use a number of processes that divides it, or pad the tensor."
        )
    return tensor.chunk(group.size, dim=dim)[group.rank]


def split_layer(whole: dict[str, Tensor], group: Group, num_heads: int) -> dict[str, Tensor]:
    """This rank's part of the parameters of a `DecoderLayer`, under the same names.

    Raises ValueError if the ranks cannot have `num_heads` heads in equal shares.
    Source: Shoeybi et al., 2019, figure 3.
    """
    if num_heads % group.size:
        raise ValueError(
            f"{num_heads} heads cannot be shared by {group.size} processes: a head stays whole. "
            "Use a number of processes that divides num_heads."
        )
    rows = ("W_q.weight", "W_k.weight", "W_v.weight", "fc1.weight", "fc1.bias")
    columns = ("W_o.weight", "fc2.weight")
    part = {}
    for name, tensor in whole.items():
        if name.endswith(rows):
            tensor = cut(tensor, group, dim=0)
        elif name.endswith(columns):
            tensor = cut(tensor, group, dim=1)
        part[name] = tensor
    return part


class CopyTo(torch.autograd.Function):
    """f: the same x goes into every rank's part; its gradient is the sum of what comes back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.group.all_reduce(gradient), None


class ReduceFrom(torch.autograd.Function):
    """g: the ranks' parts are added up; the sum's gradient is that of every part."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        return group.all_reduce(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def copy_to(x: Tensor, group: Group) -> Tensor:
    """x itself; backward, the gradient summed over the ranks (Megatron's f)."""
    return CopyTo.apply(x, group)


def reduce_from(x: Tensor, group: Group) -> Tensor:
    """x summed over the ranks; backward, the gradient itself (Megatron's g)."""
    return ReduceFrom.apply(x, group)


def parallel_feed_forward(x: Tensor, part: nn.Module, group: Group) -> Tensor:
    """The feed-forward block (..., D) -> (..., D) of which `part` has F / n of the hidden units.

    `part.fc1` has weight (F/n, D) and bias (F/n,), `part.fc2` weight (D, F/n) and the whole bias
    (D,), which is added once, after the sum. One all-reduce each way.
    """
    x = copy_to(x, group)
    hidden = torch.relu(F.linear(x, part.fc1.weight, part.fc1.bias))
    return reduce_from(F.linear(hidden, part.fc2.weight), group) + part.fc2.bias


class ParallelLayer(nn.Module):
    """This rank's part of a `DecoderLayer`: num_heads / n heads and F / n hidden units.

    Two all-reduces forward, two backward.
    """

    def __init__(self, whole: DecoderLayer, group: Group):
        super().__init__()
        layer = copy.deepcopy(whole)
        part = split_layer(layer.state_dict(), group, layer.attention.num_heads)
        for name, tensor in part.items():
            layer.get_parameter(name).data = tensor.clone()
        layer.attention.num_heads //= group.size
        self.norm1, self.attention = layer.norm1, layer.attention
        self.norm2, self.feed_forward = layer.norm2, layer.feed_forward
        self.dropout, self.group = layer.dropout, group

    def forward(self, x: Tensor, cache: Any = None, layer: int = 0) -> Tensor:
        heads = self.attention(copy_to(self.norm1(x), self.group), cache, layer)
        x = x + self.dropout(reduce_from(heads, self.group))
        return x + self.dropout(parallel_feed_forward(self.norm2(x), self.feed_forward, self.group))


class ParallelOutput(nn.Module):
    """This rank's part of the output projection: logits (..., V / n), or all with `gather`."""

    def __init__(self, whole: nn.Linear, group: Group, gather: bool = False):
        super().__init__()
        self.weight = nn.Parameter(cut(whole.weight.detach(), group, dim=0).clone())
        self.bias = nn.Parameter(cut(whole.bias.detach(), group, dim=0).clone())
        self.group, self.gather = group, gather

    def forward(self, x: Tensor) -> Tensor:
        part = F.linear(copy_to(x, self.group), self.weight, self.bias)
        return gathered(part, self.group) if self.gather else part


def gathered(part: Tensor, group: Group) -> Tensor:
    """All logits (..., V) on every rank, by adding parts that are 0 elsewhere. Only for checks."""
    whole = part.new_zeros(*part.shape[:-1], group.size * part.size(-1))
    whole[..., group.rank * part.size(-1) :][..., : part.size(-1)] = part
    return group.all_reduce(whole)


def parallelize(
    whole: DecoderOnlyTransformer, group: Group, gather: bool = False
) -> DecoderOnlyTransformer:
    """This rank's part of a model: same interface, logits (B, T, V / n) unless `gather`.

    Embeddings and norms are whole on every rank. A cache of it holds num_heads / n heads.
    Raises ValueError if heads, hidden units or vocabulary cannot be shared out equally.
    """
    model = copy.deepcopy(whole)
    model.layers = nn.ModuleList(ParallelLayer(layer, group) for layer in whole.layers)
    model.output_projection = ParallelOutput(whole.output_projection, group, gather)
    model.num_heads //= group.size
    return model.train(whole.training)


def cross_entropy(part: Tensor, targets: Tensor, group: Group) -> Tensor:
    """Mean cross-entropy from this rank's logits (..., V / n) and the targets (...), a scalar.

    Three all-reduces of the shape of `targets`; no logits are sent.
    Source: Shoeybi et al., 2019, section 3.
    """
    top = group.all_reduce(part.amax(dim=-1), "max")
    total = reduce_from(torch.exp(part - top[..., None]).sum(dim=-1), group)
    index = targets - group.rank * part.size(-1)
    mine = (index >= 0) & (index < part.size(-1))
    chosen = part.gather(-1, index.where(mine, 0)[..., None])[..., 0]
    chosen = reduce_from(chosen.where(mine, 0.0), group)
    return (total.log() + top - chosen).mean()


def greedy_token(part: Tensor, group: Group) -> Tensor:
    """The likeliest token (B,) from this rank's logits (B, V / n) of the last position.

    Of equal logits the lowest id, as `argmax`. Two all-reduces of B numbers.
    """
    best, token = part.max(dim=-1)
    top = group.all_reduce(best, "max")
    token = token + group.rank * part.size(-1)
    nobody = group.size * part.size(-1)
    return group.all_reduce(token.where(best == top, nobody), "min")


@torch.no_grad()
def generate(
    model: DecoderOnlyTransformer, input_ids: Tensor, max_new_tokens: int, group: Group
) -> Tensor:
    """Greedy ids (B, T + max_new_tokens), with a cache; the same on every rank."""
    ids, new, past_kv = input_ids, input_ids, None
    for _ in range(max_new_tokens):
        part, past_kv = model(new, past_kv, use_cache=True)
        new = greedy_token(part[:, -1], group)[:, None]
        ids = torch.cat([ids, new], dim=1)
    return ids


def with_engine(whole: DecoderOnlyTransformer, mesh: Any, one_input: bool) -> nn.Module:
    """The same by PyTorch's own engine: a copy whose weights are DTensors on a `DeviceMesh`.

    Its logits are a DTensor too, spread over the vocabulary. With `one_input`, W_q, W_k and W_v
    share the copy of x that the attention is given, and with it the all-reduce of its gradient.
    """
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        parallelize_module,
    )

    plan = {
        "attention.W_q": ColwiseParallel(),
        "attention.W_k": ColwiseParallel(),
        "attention.W_v": ColwiseParallel(),
        "attention.W_o": RowwiseParallel(),
        "feed_forward.fc1": ColwiseParallel(),
        "feed_forward.fc2": RowwiseParallel(),
    }
    if one_input:
        same = (Replicate(), None, None)  # x; the cache and the layer's number are no tensors
        plan["attention"] = PrepareModuleInput(input_layouts=same, desired_input_layouts=same)
    model = copy.deepcopy(whole)
    for layer in model.layers:
        parallelize_module(layer, mesh, plan)
        layer.attention.num_heads //= mesh.size()
    head = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    parallelize_module(model, mesh, {"output_projection": head})
    model.num_heads //= mesh.size()
    return model


def ring_all_reduce(rows: list[Tensor]) -> tuple[list[Tensor], list[int]]:
    """Each rank's result of a ring all-reduce, and how many numbers each rank sent.

    `rows` has one tensor (N,) per rank, n dividing N. In n - 1 steps every n-th part is added up
    on its way around the ring; in n - 1 more the finished parts go around.
    Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009.
    """
    n = len(rows)
    held = [list(row.chunk(n)) for row in rows]
    sent = [0] * n
    for step in range(2 * (n - 1)):
        moving = [(rank, (rank - step) % n, held[rank][(rank - step) % n]) for rank in range(n)]
        for rank, part, numbers in moving:
            there = held[(rank + 1) % n]
            there[part] = there[part] + numbers if step < n - 1 else numbers
            sent[rank] += numbers.numel()
    return [torch.cat(parts) for parts in held], sent


def ring_bytes(nbytes: int, size: int) -> float:
    """Bytes that each of `size` ranks sends in a ring all-reduce of a tensor of `nbytes`."""
    return 2 * (size - 1) / size * nbytes


PROGRAM = "course_utils.going_further.tensor_parallel_run"
PATIENCE = "COURSE_ALL_REDUCE_SECONDS"


def launch(
    size: int, *jobs: str, timeout: float = 600.0, patience: float = 60.0
) -> list[dict[str, Any]]:
    """Start `size` processes with torchrun; what each rank's jobs reported, by rank.

    `jobs` are names of `tensor_parallel_run.JOBS`. A rank waits `patience` seconds in an all-reduce
    for the others. Nothing leaves this machine.
    Raises RuntimeError, naming the rank, if one died, failed or was waited for in vain, and
    TimeoutError after `timeout` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [*torchrun(size, folder), folder, *jobs],
            cwd=ROOT,
            env=os.environ | environment() | {PATIENCE: str(patience)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"{size} processes did not finish within {timeout:g} s and were ended. Ask for "
                "fewer jobs at a time, or give them longer."
            ) from None
        finally:
            _end(process)
        if process.returncode:
            raise RuntimeError(what_failed(size, output, Path(folder)))
        reports = [Path(folder, f"rank-{rank}.json") for rank in range(size)]
        return [json.loads(report.read_text(encoding="utf-8")) for report in reports]


def torchrun(size: int, folder: str) -> list[str]:
    """The command that starts `size` processes of this machine; `torchrun` is a short name of it.

    On Windows PyTorch's store for the processes' addresses may lack libuv, which torchrun's own
    would need; there they meet at a file instead.
    """
    meet = ["--standalone"]
    if sys.platform == "win32":
        file = str(Path(folder, "meet"))
        meet = ["--rdzv-backend=c10d", f"--rdzv-endpoint={file}", "--rdzv-conf=store_type=file"]
    options = ["--local-addr=127.0.0.1", f"--nproc-per-node={size}", "-m", PROGRAM]
    return [sys.executable, "-m", "torch.distributed.run", *meet, *options]


def environment() -> dict[str, str]:
    """One thread per process, and only this machine's own loopback for the network.

    Where a process uses more, a thread that waits for another sleeps: by default it keeps its core
    busy, and where other programs need that core, it keeps the other thread waiting.
    """
    settings = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    if sys.platform == "win32":
        return settings | {"USE_LIBUV": "0", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    names = {name for _, name in socket.if_nameindex()}
    loopback = next((name for name in ("lo", "lo0") if name in names), None)
    return settings | ({"GLOO_SOCKET_IFNAME": loopback} if loopback else {})


def _end(process: subprocess.Popen) -> None:
    """End torchrun if it still runs; it ends its processes. Kill it if it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def what_failed(size: int, output: str, folder: Path) -> str:
    """Which rank is to blame, from torchrun's summary and from what the ranks could still write.

    A rank that writes nothing and was not ended by torchrun (signal 15) died of itself.
    """
    summary = re.findall(r"rank\s*: (\d+) .*\n\s*exitcode\s*: (-?\d+)", output)
    codes = {int(rank): int(code) for rank, code in summary}
    notes = {rank: folder / f"rank-{rank}.error" for rank in range(size)}
    notes = {rank: note.read_text("utf-8") for rank, note in notes.items() if note.exists()}
    died = sorted(rank for rank, code in codes.items() if code != -15 and rank not in notes)
    others = "torchrun ended the others."
    if died:
        rank = died[0]
        return f"Rank {rank} of {size} died without a word (exit code {codes[rank]}); {others}"
    own = {rank: note for rank, note in notes.items() if "gloo" not in note}
    if own:
        rank = min(own)
        return f"Rank {rank} of {size} failed: {own[rank]} {others}"
    if notes:
        waited = ", ".join(map(str, sorted(notes)))
        late = ", ".join(str(rank) for rank in range(size) if rank not in notes) or "another"
        return (
            f"Of {size} ranks, rank {waited} waited in vain for rank {late}: all ranks must make "
            f"the same all-reduces. {others}"
        )
    return f"torchrun could not start {size} processes: {output.strip()[-500:]}"
