"""Is the model right, and is its cache right? (notebook 05)

`cases` holds the stored logits, `scripts` what a user of a cache does, `judge` the two judgements,
`report` what they find, and `questions` how much a model remembers of a story.
"""

from .cases import TEST_CASES, TestCase, load_test_cases
from .judge import evaluate, kv_evaluate
from .precise import precise_copy, refuse_missing_rows, refusing_nan
from .questions import RECALL_AIMS, answers_right, recall
from .report import Difference, Report, Result, first_difference
from .scripts import (
    after_rollback,
    alternating,
    can_roll_back,
    follows_its_device,
    in_portions,
    max_seq_len,
    portionings,
    side_by_side,
    uncached,
    vocab_size,
)

__all__ = [
    "RECALL_AIMS",
    "TEST_CASES",
    "Difference",
    "Report",
    "Result",
    "TestCase",
    "after_rollback",
    "alternating",
    "answers_right",
    "can_roll_back",
    "evaluate",
    "first_difference",
    "follows_its_device",
    "in_portions",
    "kv_evaluate",
    "load_test_cases",
    "max_seq_len",
    "portionings",
    "precise_copy",
    "recall",
    "refuse_missing_rows",
    "refusing_nan",
    "side_by_side",
    "uncached",
    "vocab_size",
]
