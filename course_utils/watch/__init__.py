"""A cache that one can watch (notebooks 04 and 05).

`watch` feeds a text to a model, call by call, and shows which rows of K and V are written and read,
what the new words look at, and what comes out, beside the same without a cache. `inspect` shows
what a cache holds.
"""

from .contents import contents
from .inspector import Inspected, inspect
from .record import Call, Record, Recorder
from .watched import Watched, watch

__all__ = [
    "Call",
    "Inspected",
    "Record",
    "Recorder",
    "Watched",
    "contents",
    "inspect",
    "watch",
]
