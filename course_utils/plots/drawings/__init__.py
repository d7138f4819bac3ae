"""Schematic drawings, made by code: each says in a picture what the next lines say in words."""

from .cache import mask_offset, memory, positions, prefill_and_decode, what_is_kept
from .chapters import cut_in_two, page_table
from .clock import asked_and_done, what_runs
from .fewer import one_token_reads, square_and_tile, what_smaller_caches_keep
from .looking_back import many_heads, no_looking_ahead, one_head, query_meets_keys
from .model import block, whole_model
from .proof import nothing_is_read, script
from .writing import computed_again, generation_loop

__all__ = [
    "asked_and_done",
    "block",
    "computed_again",
    "cut_in_two",
    "generation_loop",
    "many_heads",
    "mask_offset",
    "memory",
    "no_looking_ahead",
    "nothing_is_read",
    "one_head",
    "one_token_reads",
    "page_table",
    "positions",
    "prefill_and_decode",
    "query_meets_keys",
    "script",
    "square_and_tile",
    "what_is_kept",
    "what_runs",
    "what_smaller_caches_keep",
    "whole_model",
]
