"""Every figure of the course: one size, one look (`look.py`), readable in grey.

Each function takes measured data and returns a matplotlib figure; nothing here measures anything.
"""

from . import drawings
from .n01_attention import all_heads, attention_steps, lookup, softmax_overflow
from .n02_transformer_block import parameter_shares, stream
from .n03_generation import cuts, repeated_work, step_times, temperatures
from .n04_kv_cache import cache_bytes, filling, masks, what_changes
from .n05_is_it_right import caught, looks, recall_bars
from .n06_latency_sweep import fooled_clocks, gain, growth, latency_sweep, prefill
from .picture import png, show
from .training_log import training

__all__ = [
    "all_heads",
    "attention_steps",
    "cache_bytes",
    "caught",
    "cuts",
    "drawings",
    "filling",
    "fooled_clocks",
    "gain",
    "growth",
    "latency_sweep",
    "lookup",
    "looks",
    "masks",
    "parameter_shares",
    "png",
    "prefill",
    "recall_bars",
    "repeated_work",
    "show",
    "softmax_overflow",
    "step_times",
    "stream",
    "temperatures",
    "training",
    "what_changes",
]
