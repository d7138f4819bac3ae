"""Ranks, and how they add up: among processes, or among threads to learn with (chapter 11).

    Group, Call    one of the ranks that hold a model between them, and what it asked for
    Processes      the ranks that torchrun started
    in_threads     the same program as threads of this process
    ring_all_reduce    how an all-reduce is done without one who does it all

Shapes: n ranks (`group.size`), N numbers in a tensor that is added up.
"""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

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
        self.awaited: list[int] = []  # the rounds in which somebody waits
        self.changed = threading.Condition()

    def bring(self, number: int, rank: int, op: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        """What all ranks brought to a round, once they have. Raises RuntimeError if they cannot."""
        with self.changed:
            brought = self.rounds[number]  # two ranks at once would each make the round's dict
            brought[rank] = op, tensor
            self.awaited.append(number)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.ends(number) or self.stuck())
            stuck, missing = self.stuck(), self.gone - set(brought)
            self.awaited.remove(number)
        if stuck:
            raise RuntimeError(
                f"Rank {rank}'s group waits in its all-reduce number {number}, and so do all that "
                "could still come. Is it used by another rank, too, because it is kept in a class "
                "or a global name? All ranks must make the same calls, each with its own group."
            )
        if missing:
            raise RuntimeError(
                f"Rank {rank} waits in its all-reduce number {number}, to which rank "
                f"{min(missing)} never comes: it has ended. All ranks must make the same calls in "
                "the same order. (Processes would wait here for a rank that lives, until their "
                "time-out.)"
            )
        return [brought[r] for r in range(self.size)]

    def ends(self, number: int) -> bool:
        """Whether all have come to a round, or somebody never will."""
        brought = self.rounds[number]
        return len(brought) == self.size or bool(self.gone - set(brought))

    def stuck(self) -> bool:
        """Whether everybody who is left waits for somebody else."""
        all_wait = len(self.awaited) + len(self.gone) >= self.size
        return all_wait and not any(map(self.ends, self.awaited))

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
