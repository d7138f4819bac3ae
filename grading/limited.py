"""Work on what students wrote, in a process of its own that gets little memory and little time.

    python -m grading.limited

That process answers a line of JSON, a function's name and its arguments, with a line of JSON. It
ends when nobody asks any more. Where it fails, it is replaced, and only what was asked is lost.
"""

import base64
import json
import os
import selectors
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

MEMORY = 400_000_000  # bytes of addresses; an honest file of 20 MB needs 200 MB
SECONDS = 20.0
LONGEST = 30_000_000  # bytes of an answer
DIED = "the process that read it died"
NO_MEMORY = "it took too much memory"
ROOT = Path(__file__).resolve().parent.parent
_mine = threading.local()


class TooMuch(RuntimeError):
    """It took too much time or memory, killed its process, or its result was too large."""


class Limited:
    """A process that does one thing after the other; `close()` ends it, as does its last use."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "grading.limited"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # 64 MB of addresses for each thread else
        )
        self.close = weakref.finalize(self, _end, self.process)

    def __call__(self, name: str, *given: object) -> object:
        """What that function of the process returns. Raises TooMuch, RuntimeError if it fails."""
        try:
            self.process.stdin.write(json.dumps([name, given]).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise TooMuch(DIED) from None
        done, found = json.loads(self._line(time.monotonic() + SECONDS))
        if not done:
            raise TooMuch(found) if found == NO_MEMORY else RuntimeError(found)
        return found

    def _line(self, end: float) -> bytes:
        parts, size = [], 0
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            while not parts or not parts[-1].endswith(b"\n"):
                if not ready.select(max(0.0, end - time.monotonic())):
                    raise TooMuch("it took too much time")
                parts.append(os.read(self.process.stdout.fileno(), 1 << 20))
                size += len(parts[-1])
                if not parts[-1]:
                    raise TooMuch(DIED)
                if size > LONGEST:
                    raise TooMuch("the result is too large")
        return b"".join(parts)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def limited(name: str, *given: object) -> object:
    """Ask this thread's own process. Raises TooMuch or RuntimeError, and has a new one then."""
    if getattr(_mine, "process", None) is None:
        _mine.process = Limited()
    try:
        return _mine.process(name, *given)
    except BaseException:
        _mine.process.close()
        _mine.process = None
        raise


def serve() -> None:
    """Answer each line of stdin, until there is none."""
    if sys.platform.startswith("linux"):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from .extract import extracted
    from .feedback import rendered

    functions = {"extracted": extracted, "rendered": rendered}
    for line in sys.stdin.buffer:
        name, given = json.loads(line)
        try:
            answer = True, functions[name](*given)
        except MemoryError:  # the process goes on: the next request may be a small one
            answer = False, NO_MEMORY
        except Exception as error:
            answer = False, f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


def packed(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def unpacked(text: str) -> bytes:
    return base64.b64decode(text)


if __name__ == "__main__":
    serve()
