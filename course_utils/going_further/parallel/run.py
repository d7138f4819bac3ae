"""What each process runs: torchrun starts it, and `launch.launch` torchrun (chapter 11).

    torchrun --standalone --nproc-per-node 2 -m course_utils.going_further.parallel.run
        FOLDER JOB...

writes FOLDER/rank-0.json and rank-1.json: what each rank found, by job.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ...transformer import load_model
from .comparisons import NEW, dropout, engine, gradients, logits, prompt
from .groups import Group, Processes
from .launch import PATIENCE
from .measurements import calls, clock, wire
from .tensor_parallel import generate, parallelize


def trouble(group: Group, how: Callable[[], object]) -> None:
    """Decode token by token; the last rank has an accident at the sixth."""
    part = parallelize(load_model(device="cpu"), group)
    for number in range(NEW):
        if number == 5 and group.rank == group.size - 1:
            how()
        generate(part, prompt(), 1, group)


def fails() -> None:
    raise ValueError("something of this rank's own is wrong.")


JOBS: dict[str, Callable[[Group], Any]] = {
    "logits": logits,
    "gradients": gradients,
    "calls": calls,
    "dropout": dropout,
    "wire": wire,
    "engine": engine,
    "clock": clock,
    "dies": lambda group: trouble(group, lambda: os._exit(3)),
    "hangs": lambda group: trouble(group, lambda: time.sleep(600)),
    "fails": lambda group: trouble(group, fails),
}


def main() -> None:
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    try:
        group = Processes(timeout=float(os.environ.get(PATIENCE, 60)))
        report = {job: JOBS[job](group) for job in sys.argv[2:]}
    except Exception as error:
        note = f"{type(error).__name__}: {error}"
        (folder / f"rank-{rank}.error").write_text(note, encoding="utf-8")
        raise
    (folder / f"rank-{rank}.json").write_text(json.dumps(report), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
