"""A loop that lets another process time what happens in this one. It does not import PyTorch.

Requests and answers are lines of JSON: `[[3, 1, 4], 10]` asks for 10 tokens after these three, and
the answer has the seconds that took, the tokens, and the process's peak of memory in bytes.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

Generate = Callable[[list[int], int], list[int]]  # a prompt and how many tokens -> the new tokens


def serve(make: Callable[[], Generate]) -> None:
    """Make the engine, say so, then answer until there are no more requests."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what an engine prints goes to stderr
    start, before = time.perf_counter(), memory("VmRSS")
    generate = make()
    print(json.dumps({"seconds": time.perf_counter() - start}), file=answers, flush=True)
    for line in sys.stdin:
        prompt, new = json.loads(line)
        generate(prompt[:8], 2)  # its threads are awake
        forget_peak()
        start = time.perf_counter()
        ids = generate(prompt, new)
        seconds = time.perf_counter() - start
        answer = {"seconds": seconds, "ids": ids, "peak": memory("VmHWM") - before}
        print(json.dumps(answer), file=answers, flush=True)


def memory(field: str) -> int:
    """Bytes that Linux tells of this process: VmRSS now, VmHWM at the peak. 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def forget_peak() -> None:
    """Set this process's peak of memory to what it holds now, where Linux lets one."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return
