"""What the check cells of the notebooks call: a verdict, or an AssertionError that says why not."""

from .n01_attention import check_attention
from .n01_heads import check_multi_head
from .n01_softmax import check_causal_mask, check_softmax
from .n02_feed_forward import check_feed_forward
from .n02_layer import check_decoder_layer
from .n02_layer_norm import check_layer_norm
from .n02_model import check_model
from .n03_beam_search import check_beam_search
from .n03_generation import check_generate
from .n03_next_token import check_next_token
from .n03_sampling import check_keep_top_k, check_keep_top_p
from .n04_attention import check_cached_attention
from .n04_caches import check_cache, check_preallocated
from .n04_loop import check_decode_loop
from .n04_model import check_cached_model
from .n05_cured import check_cured
from .n05_is_it_right import check_reorder, check_report
from .n06_counting import check_operations
from .n06_exponent import check_exponent
from .n06_latency_sweep import (
    check_all_lengths_timed,
    check_cached_steps_grow_slowly,
    check_counts,
    check_parts,
    check_speed_up_rises,
    check_sweep,
    check_total_is_polynomial,
    slope,
)
from .n06_measuring import check_measure
from .n06_stop_watch import check_token_times
from .progress import EXERCISES, PASSES, progress
from .saved import how_far

__all__ = [
    "EXERCISES",
    "PASSES",
    "check_all_lengths_timed",
    "check_attention",
    "check_beam_search",
    "check_cache",
    "check_cached_attention",
    "check_cached_model",
    "check_cached_steps_grow_slowly",
    "check_causal_mask",
    "check_counts",
    "check_cured",
    "check_decode_loop",
    "check_decoder_layer",
    "check_exponent",
    "check_feed_forward",
    "check_generate",
    "check_keep_top_k",
    "check_keep_top_p",
    "check_layer_norm",
    "check_measure",
    "check_model",
    "check_multi_head",
    "check_next_token",
    "check_operations",
    "check_parts",
    "check_preallocated",
    "check_reorder",
    "check_report",
    "check_softmax",
    "check_speed_up_rises",
    "check_sweep",
    "check_token_times",
    "check_total_is_polynomial",
    "how_far",
    "progress",
    "slope",
]
