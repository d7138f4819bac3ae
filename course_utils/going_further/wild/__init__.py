"""Caches in the wild (chapter 13): the course's judgement for any causal model of `transformers`.

`adapter` gives a model the course's interface, `caches` the library's caches its two methods;
`measured` tells a model's own properties apart from a wrong cache, `judge` brings them together.
`small` makes a small model of any type, `mistakes` names a wrong cache.
"""

from .adapter import Adapted, NoCache, Use, first_cache
from .caches import KINDS, Kept, why_not_cropped
from .command import add_arguments, check_arguments, judge_as_asked, model_as_asked
from .installed import causal_types, is_of_the_library
from .judge import Judgement, adapted, judge, model_of
from .measured import Measured, Unfit, measure
from .small import small_config, small_model

__all__ = [
    "KINDS",
    "Adapted",
    "Judgement",
    "Kept",
    "Measured",
    "NoCache",
    "Unfit",
    "Use",
    "adapted",
    "add_arguments",
    "causal_types",
    "check_arguments",
    "first_cache",
    "is_of_the_library",
    "judge",
    "judge_as_asked",
    "measure",
    "model_as_asked",
    "model_of",
    "small_config",
    "small_model",
    "why_not_cropped",
]
