"""What the ranks send each other, and how long it takes: jobs that count and time (chapter 11)."""

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from ...transformer import DecoderOnlyTransformer, load_model
from .comparisons import batch, train_loss
from .groups import Group
from .tensor_parallel import generate, parallelize

TCP = [(family, socket.SOCK_STREAM) for family in (socket.AF_INET, socket.AF_INET6)]


def calls(group: Group) -> dict[str, Any]:
    """Every all-reduce of a forward pass, a training step and a decoded token, in float32.

    A list for each of [operation, bytes, how often].
    """
    whole = load_model(device="cpu")
    part, ids = parallelize(whole, group), batch()
    found = {}

    def count(name: str, task: Callable[[], object]) -> None:
        group.calls.clear()
        task()
        found[name] = [[op, size, times] for (op, size), times in sorted(group.sizes().items())]

    with torch.no_grad():
        count("forward", lambda: part(ids))
    count("train", lambda: train_loss(part, ids, group).backward())
    count("decode", lambda: generate(part, ids[:, :1], 1, group))
    return found


def sent_by_this_process() -> int | None:
    """Bytes that this process's TCP connections have sent so far; None where Linux does not count.

    The kernel keeps the number for each connection, so that other traffic of the machine is not in
    it: TCP_INFO has `tcpi_bytes_sent` at byte 200, and behind it how many of these were sent again,
    since the other side was slow to answer.
    """
    if sys.platform != "linux":
        return None
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if (connection.family, connection.type) in TCP:
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 216)
                    if len(info) < 216:
                        return None
                    total += int.from_bytes(info[200:208], sys.byteorder)
                    total -= int.from_bytes(info[208:216], sys.byteorder)
        except OSError:  # closed in the meantime
            continue
    return total


def wire(group: Group) -> dict[str, Any]:
    """Bytes that this rank sends in an all-reduce of 8 MB, as the system counts them."""
    tensor = torch.ones(2_000_000)
    before = sent_by_this_process()
    group.all_reduce(tensor)
    dist.barrier()  # by then the others have got it
    after = sent_by_this_process()
    sent = None if before is None or after is None else after - before
    return {"tensor": tensor.nbytes, "sent": sent}


@torch.no_grad()
def clock(group: Group, rounds: int = 3, new: int = 4) -> list[dict[str, Any]]:
    """Seconds for a prefill of 64 tokens and for a decoded token, alone and together, in turns.

    Alone is the whole model on rank 0, on one thread and on one per core; the others wait. Of the
    time together, `all_reduces` were spent in those, waiting for other ranks included.
    """
    torch.manual_seed(0)
    wide = DecoderOnlyTransformer(4096, 512, 2048, 2, 64, num_heads=8, dropout=0.0).eval()
    rows, ids = [], batch(1, 64)
    for name, whole in {"small": load_model(device="cpu"), "wide": wide}.items():
        part = parallelize(whole, group)
        tasks = {
            "prefill": (1, lambda m=whole: m(ids), lambda m=part: m(ids)),
            "decode": (
                new,
                lambda m=whole: m.generate(ids[:, :1], new, temperature=0),
                lambda m=part: generate(m, ids[:, :1], new, group),
            ),
        }
        for task, (count, alone, together) in tasks.items():
            for number in range(rounds + 1):
                row = {"model": name, "task": task, "round": number}
                if group.rank == 0:
                    row["alone"] = seconds(alone, 1) / count
                    row["all cores"] = seconds(alone, os.cpu_count()) / count
                dist.barrier()
                group.calls.clear()
                row["together"] = seconds(together, 1) / count
                row["all-reduces"] = sum(call.seconds for call in group.calls) / count
                row["calls"] = len(group.calls) / count
                rows.append(row)
                dist.barrier()
    return [row for row in rows if row["round"]]


def seconds(task: Callable[[], object], threads: int) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    start = time.perf_counter()
    task()
    taken = time.perf_counter() - start
    torch.set_num_threads(before)
    return taken
