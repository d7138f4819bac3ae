"""What attention in tiles may hold, move and compute (chapter 08)."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from ....checks.inputs import random
from .. import flash_attention as right
from ..flash_attention import Memory

TILES = ((8, 8), (48, 2))  # for 96 queries on 96 keys


def judge_size(flash_attention: Callable) -> None:
    """A tile at a time, and each tile of queries meets all keys once."""
    given = [random(seed, 96, 4) for seed in range(3)]
    for tile in TILES:
        (held, moved), (least, fewest) = (
            traffic(attend, *given, None, False, tile)
            for attend in (flash_attention, right.flash_attention)
        )
        if held > 2 * least:
            raise AssertionError(
                f"96 queries, 96 keys, tiles of {tile}: up to {held:,} bytes at a time, where "
                f"about {least:,} suffice; a score for each pair takes {96 * 96 * 8:,}. In one "
                "step, only the queries of one tile meet the keys of one tile."
            )
        # An answer that divides the scores, not the queries, reads these for each tile of keys.
        enough = fewest + given[0].nbytes * 96 // tile[1]
        if moved > 1.2 * enough:
            raise AssertionError(
                f"96 queries, 96 keys, tiles of {tile}: {moved:,} bytes moved, where {enough:,} "
                f"suffice. {tile[0]} queries and {tile[1]} keys make a tile, and one tile of "
                "queries meets all keys before the next one starts."
            )


def traffic(run: Callable, *given: object) -> tuple[int, int]:
    """Bytes that a call held at a time, and bytes that it moved: a tile is in fast memory."""
    with torch.no_grad(), Memory(fast=2**12) as memory:
        run(*given)
    return memory.peak, memory.moved


def judge_skipping(flash_attention: Callable) -> None:
    for num_queries, num_keys, tile in ((32, 32, (4, 4)), (5, 21, (2, 4)), (21, 5, (3, 2))):
        q, *kv = random(0, num_queries, 4), random(1, num_keys, 4), random(2, num_keys, 4)
        with FlopCounterMode(display=False) as counter:
            flash_attention(q, *kv, None, True, tile)
        done, pairs = counter.get_total_flops() / (2 * 2 * 4), 0
        for rows in right.tiles(num_queries, tile[0]):
            visible = max(num_keys - num_queries + rows.stop, 0)
            whole = min(-(-visible // tile[1]) * tile[1], num_keys)
            pairs += (rows.stop - rows.start) * whole
        if done > pairs:
            raise AssertionError(
                f"{num_queries} causal queries, {num_keys} keys, tiles of {tile}: {done:.0f} "
                f"scores are computed, but the tiles that hold a visible key have {pairs}. End the "
                "loop over keys at the last position that the tile's queries may see: the keys "
                "before past + rows.stop."
            )
