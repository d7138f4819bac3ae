"""Schematic drawings, made by code: each says in a picture what the next lines say in words."""

from .cache import mask_offset, memory, positions, prefill_and_decode, what_is_kept
from .chapters import (
    cut_in_two,
    one_by_one_or_side_by_side,
    one_layer_two_processes,
    page_table,
)
from .clock import asked_and_done, what_runs
from .fewer import one_token_reads, square_and_tile, what_smaller_caches_keep
from .foreign import names_and_shapes, one_adapter
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
    "names_and_shapes",
    "no_looking_ahead",
    "nothing_is_read",
    "one_adapter",
    "one_by_one_or_side_by_side",
    "one_head",
    "one_layer_two_processes",
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
