"""Start the processes of one model with torchrun, and say which failed (chapter 11)."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...transformer import ROOT

PROGRAM = "course_utils.going_further.parallel.run"
PATIENCE = "COURSE_ALL_REDUCE_SECONDS"
ENDED = (-15, 0xC000013A)  # what torchrun ends its processes by: signal 15, on Windows Ctrl-C


def launch(
    size: int, *jobs: str, timeout: float = 600.0, patience: float = 60.0
) -> list[dict[str, Any]]:
    """Start `size` processes with torchrun; what each rank's jobs reported, by rank.

    `jobs` are names of `run.JOBS`. A rank waits `patience` seconds in an all-reduce
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
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # or its Ctrl-C is ours
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
    """End torchrun if it still runs; it ends its processes. Kill it if it does not.

    On Windows it cannot end them, since it is not told that it is ended itself.
    """
    if process.poll() is None:
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True)
        else:
            process.terminate()
        try:
            process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def what_failed(size: int, output: str, folder: Path) -> str:
    """Which rank is to blame, from torchrun's summary and from what the ranks could still write.

    A rank that writes nothing and was not ended by torchrun died of itself.
    """
    summary = re.findall(r"rank\s*: (\d+) .*\n\s*exitcode\s*: (-?\d+)", output)
    codes = {int(rank): int(code) for rank, code in summary}
    notes = {rank: folder / f"rank-{rank}.error" for rank in range(size)}
    notes = {rank: note.read_text("utf-8") for rank, note in notes.items() if note.exists()}
    died = sorted(rank for rank, code in codes.items() if code not in ENDED and rank not in notes)
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
