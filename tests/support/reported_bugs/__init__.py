"""Wrong caches that others have reported, written anew as small models.

Each is right without its cache and in some use of it, and wrong in another use that the interface
allows. `REPORTED` holds the model classes by name; each says in `room` how many positions it needs.
"""

from . import (
    callers,
    chunks,
    generating,
    in_between,
    leaks,
    lengths,
    loops,
    numbers,
    padding,
    prefixes,
    rarely,
    reorder,
    rollback,
    tokens,
    undone,
)
from .entry import REPORTS

SUBJECTS = (
    lengths,
    loops,
    callers,
    chunks,
    rollback,
    undone,
    reorder,
    padding,
    prefixes,
    rarely,
    leaks,
    generating,
    tokens,
    numbers,
    in_between,
)
REPORTED: dict[str, type] = {name: report.model_class for name, report in REPORTS.items()}
