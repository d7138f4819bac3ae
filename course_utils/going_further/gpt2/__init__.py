"""Real weights (chapter 12): what its rooms `model` and `checkpoint` hold, as `gpt2.<name>`."""

from .checkpoint import (
    FILE,
    ONLY,
    check_tensors,
    expected_shapes,
    export_gpt2,
    find_gpt2,
    gpt2_arguments,
    load_gpt2,
    read_checkpoint,
)
from .model import (
    BLOCK,
    GPT2,
    PREFIX,
    GPT2FeedForward,
    fold_head,
    gelu_new,
    split_c_attn,
    to_gpt2,
    translate,
)

__all__ = [
    "BLOCK",
    "FILE",
    "GPT2",
    "GPT2FeedForward",
    "ONLY",
    "PREFIX",
    "check_tensors",
    "expected_shapes",
    "export_gpt2",
    "find_gpt2",
    "fold_head",
    "gelu_new",
    "gpt2_arguments",
    "load_gpt2",
    "read_checkpoint",
    "split_c_attn",
    "to_gpt2",
    "translate",
]
