"""Calls of a function in a process of its own, which is replaced when it dies or does not end."""

import contextlib
import importlib
import logging
import multiprocessing
import sys
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

HERE = Path(__file__).resolve().parent


def serve(pipe: Connection, function: str) -> None:
    """Answer what comes through the pipe by `function` ("module.name"), until it is closed."""
    sys.path[:0] = [str(HERE), str(HERE.parents[1])]
    warnings.simplefilter("ignore")
    logging.disable()
    module, _, name = function.rpartition(".")
    call = getattr(importlib.import_module(module), name)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    with contextlib.suppress(EOFError):
        pipe.send("ready")
        while True:
            pipe.send(call(*pipe.recv()))


class Apart:
    """`Apart("mutated_caches.verdict")(*given, limit=seconds)` is what that function returns.

    Raises TimeoutError when it takes longer, and ProcessLookupError when its process dies. The next
    call has a new process then.
    """

    def __init__(self, function: str) -> None:
        self.function = function
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, there = context.Pipe()
        arguments = (there, self.function)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        there.close()
        self.pipe.recv()

    def __call__(self, *given: object, limit: float) -> object:
        self.pipe.send(given)
        try:
            if self.pipe.poll(limit):
                return self.pipe.recv()
            error = TimeoutError(f"stopped after {limit:.0f} seconds")
        except (EOFError, ConnectionError):
            error = ProcessLookupError("the process died")
        self.close()
        self.start()
        raise error

    def close(self) -> None:
        self.process.kill()
        self.process.join()
