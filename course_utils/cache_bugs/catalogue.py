"""The catalogue: all wrong caches by name, subject by subject (notebook 05)."""

from . import (
    contents,
    layers_and_rows,
    limits,
    masks,
    offers,
    positions,
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
    limits,
    offers,
)
CATALOGUE: dict[str, CacheBug] = {bug.name: bug for subject in SUBJECTS for bug in subject.BUGS}
