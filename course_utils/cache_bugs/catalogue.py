"""The catalogue: all wrong caches by name, subject by subject (notebook 05)."""

from . import (
    contents,
    generating,
    layers_and_rows,
    lengths,
    limits,
    masks,
    offers,
    positions,
    rows_in_motion,
    sharing,
    wrong_numbers,
)
from .entry import CacheBug

SUBJECTS = (
    positions,
    masks,
    contents,
    layers_and_rows,
    sharing,
    wrong_numbers,
    lengths,
    limits,
    offers,
    rows_in_motion,
    generating,
)
CATALOGUE: dict[str, CacheBug] = {bug.name: bug for subject in SUBJECTS for bug in subject.BUGS}
