"""Is the model right, and is its cache right? (notebook 05)

`steps` are what a user of a cache does, `systematic`, `seldom` and `random_scripts` sequences of
them; `play` plays one, `lane` judges it in a dtype, `trial` collects, and `judge` holds the two
judgements. `report` is what they find, `cases` holds the stored logits, `questions` how much a
model remembers.
"""

from .cases import TEST_CASES, TestCase, load_test_cases
from .devices import NotJudged, follows_its_device
from .differences import Difference, first_difference
from .judge import evaluate, kv_evaluate, replay
from .lane import Lane, lane_in
from .model import in_chunks, max_seq_len, offers, on_device, uncached, vocab_size
from .play import Outcome
from .precise import copied, precise_copy, refuse_missing_rows, refusing_nan
from .questions import RECALL_AIMS, answers_right, recall
from .report import Failure, Report, Result
from .steps import Feed, Generate, New, Reorder, RollBack, Script, Step, Uncached, feeds, words
from .systematic import ways_to_feed

__all__ = [
    "RECALL_AIMS",
    "TEST_CASES",
    "Difference",
    "Failure",
    "Feed",
    "Generate",
    "Lane",
    "New",
    "NotJudged",
    "Outcome",
    "Reorder",
    "Report",
    "Result",
    "RollBack",
    "Script",
    "Step",
    "TestCase",
    "Uncached",
    "answers_right",
    "copied",
    "evaluate",
    "feeds",
    "first_difference",
    "follows_its_device",
    "in_chunks",
    "kv_evaluate",
    "lane_in",
    "load_test_cases",
    "max_seq_len",
    "offers",
    "on_device",
    "precise_copy",
    "recall",
    "refuse_missing_rows",
    "refusing_nan",
    "replay",
    "uncached",
    "vocab_size",
    "ways_to_feed",
    "words",
]
