"""Which exercises of a notebook pass, and what remains: the strip at the end of each notebook."""

import linecache
from collections.abc import Callable

import pandas as pd

from .common import file_of, is_stub
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
from .n05_is_it_right import check_reorder
from .n06_counting import check_operations
from .n06_exponent import check_exponent
from .n06_measuring import check_measure
from .n06_stop_watch import check_token_times

PASSES = "passes"
THE_COURSES = "# the course's version"  # in what is copied from "Stuck?"

LEFT_TD = '<td style="text-align: left">'

Exercises = dict[str, dict[str, tuple[Callable[..., str], tuple[str, ...]]]]


EXERCISES: Exercises = {
    "01": {
        "1: the softmax that does not overflow": (check_softmax, ("softmax",)),
        "2: the causal mask": (check_causal_mask, ("causal_mask",)),
        "3: attention": (check_attention, ("attention_weights", "attention")),
        "4: many heads": (check_multi_head, ("MultiHeadAttention",)),
    },
    "02": {
        "1: layer norm": (check_layer_norm, ("layer_norm",)),
        "2: feed-forward": (check_feed_forward, ("FeedForward",)),
        "3: the decoder layer": (check_decoder_layer, ("DecoderLayer",)),
        "4: the decoder-only transformer": (check_model, ("DecoderOnlyTransformer",)),
    },
    "03": {
        "1: top-k": (check_keep_top_k, ("keep_top_k",)),
        "2: top-p": (check_keep_top_p, ("keep_top_p",)),
        "3: the next token": (check_next_token, ("next_token",)),
        "4: generate": (check_generate, ("generate",)),
        "5: beam search (optional)": (check_beam_search, ("beam_search",)),
    },
    "04": {
        "1: a growing cache": (check_cache, ("GrowingCache",)),
        "2: attention with a cache": (
            check_cached_attention,
            ("MultiHeadAttention", "GrowingCache"),
        ),
        "3: the model with a cache": (check_cached_model, ("DecoderOnlyTransformer",)),
        "4: feed only what is new": (check_decode_loop, ("decode_loop",)),
        "5: a preallocated cache": (check_preallocated, ("PreallocatedCache",)),
    },
    "05": {
        "1: cure patient 1": (check_cured, ("Cured1",)),
        "2: cure patient 2": (check_cured, ("Cured2",)),
        "3: cure patient 3": (check_cured, ("Cured3",)),
        "4: cure patient 4": (check_cured, ("Cured4",)),
        "5: reorder the rows (optional)": (check_reorder, ("ReorderedCache",)),
    },
    "06": {
        "1: a time for each token": (check_token_times, ("token_times",)),
        "2: a fair measurement": (check_measure, ("measure",)),
        "3: count": (check_operations, ("operations",)),
        "4: the exponent": (check_exponent, ("exponent",)),
    },
}


class Table(pd.DataFrame):
    """A table whose texts are shown to their ends, and begin on the left."""

    def _repr_html_(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            html = super()._repr_html_()
        return html.replace("<td>", LEFT_TD).replace("<th>", LEFT_TD.replace("td", "th", 1))

    def __repr__(self) -> str:
        with pd.option_context("display.max_colwidth", None):
            return super().__repr__()


def progress(notebook: str, defined: dict[str, object], exercises: Exercises = EXERCISES) -> Table:
    """Which exercises of `notebook` ("01" to "06") pass, and what remains: one row for each.

    `defined` holds the answers by name: `globals()` in the notebook. Nothing is raised. `exercises`
    are those of the chapters, for a notebook from "07" on.
    """
    checks = exercises[notebook]
    print(f"Running {len(checks)} checks, each for up to two seconds ...")
    states = {
        title: _state(check, [defined.get(name) for name in names])
        for title, (check, names) in checks.items()
    }
    remaining = [title for title, state in states.items() if state != PASSES]
    print(f"{len(states) - len(remaining)} of {len(states)} pass.", *remaining[:1], sep=" Next is ")
    return Table({"state": list(states.values())}, pd.Index(states, name="exercise"))


def _state(check: Callable[..., str], answers: list[object]) -> str:
    if any(answer is None for answer in answers):
        return "to do"
    try:
        check(*answers)
    except AssertionError as error:
        return f"not yet: {error}"
    except Exception as error:
        return "to do" if is_stub(error) else f"not yet: {type(error).__name__}: {error}"
    if all(_is_the_courses(answer) for answer in answers):
        return "the course's version; yours is to come"
    return PASSES


def _is_the_courses(answer: object) -> bool:
    """Whether an answer is imported from the course, or comes from a cell that says it is."""
    if getattr(answer, "__module__", "").startswith("course_utils"):
        return True
    file = file_of(answer)
    return file is not None and any(THE_COURSES in line for line in linecache.getlines(file))
