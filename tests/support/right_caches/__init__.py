"""Right models with unusual caches: no judge may find fault with any of them.

`RIGHT` holds the model classes by name. Each is built like the course's model, has its parameters
by name, and gives the uncached logits in every use that the interface allows: within rounding of
float64, or of the dtype in its attribute `exact_in`.
"""

from . import (
    attending,
    encodings,
    forms,
    growth,
    odd_stores,
    padding,
    pages,
    recomputing,
    rows,
    stores,
    unlikely,
    whole_models,
)
from .parts import RIGHT

SUBJECTS = (
    forms,
    encodings,
    growth,
    odd_stores,
    pages,
    stores,
    unlikely,
    rows,
    recomputing,
    attending,
    padding,
    whole_models,
)

__all__ = ["RIGHT", "SUBJECTS"]
