"""What is printed of an answer when it is graded, on inputs that are drawn for each grading run.

A probe is code that runs in the student's kernel after the answer, with `SEED` replaced by a
number, and in names of its own. It prints values, and nothing in that process knows which values
are right: the master's are compared outside.
"""

from . import n01, n02, n03, n04, n05, n06
from .shared import PREAMBLE, Probe, asked

__all__ = ["PREAMBLE", "PROBES", "Probe", "asked"]

PROBES = {
    name: probe for part in (n01, n02, n03, n04, n05, n06) for name, probe in part.PROBES.items()
}
