"""Schematic drawings, made by code: each says in a picture what the next lines say in words."""

from .cache import mask_offset, positions, prefill_and_decode, what_is_kept
from .looking_back import many_heads, no_looking_ahead, one_head, query_meets_keys
from .model import block, whole_model
from .writing import computed_again, generation_loop

__all__ = [
    "block",
    "computed_again",
    "generation_loop",
    "many_heads",
    "mask_offset",
    "no_looking_ahead",
    "one_head",
    "positions",
    "prefill_and_decode",
    "query_meets_keys",
    "what_is_kept",
    "whole_model",
]
