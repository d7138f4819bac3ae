"""What the check cells of "How fast can it go?" call (chapter 07)."""

from functools import partial

from .... import checks
from .counts import check_bytes_per_token
from .parts import check_in_parts
from .steps import check_quantize

__all__ = ["EXERCISES", "check_bytes_per_token", "check_in_parts", "check_quantize", "progress"]

EXERCISES = {
    "07": {
        "1: count the bytes": (check_bytes_per_token, ("bytes_per_token",)),
        "2: a product in parts": (check_in_parts, ("in_parts",)),
        "3: eight bits": (check_quantize, ("quantize",)),
    },
}
progress = partial(checks.progress, exercises=EXERCISES)
