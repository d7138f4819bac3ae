"""The course's model watched: its own cache, and the four patients of notebook 05."""

import pytest

from course_utils import cache_bugs, watch
from course_utils.stories import Tokenizer
from course_utils.transformer import load_model

TEXT = "Mia put the red bell in the wooden box. Where is the red bell?"
EARLIER = "Ana found the shiny lamp."
PATIENTS = ("mask_columns", "stale", "leaks_into_the_next", "append_unmasked")


@pytest.fixture(scope="package")
def right():
    return load_model(device="cpu")


@pytest.fixture(scope="package")
def recorder(right):
    return watch.Recorder(right, Tokenizer(), TEXT, earlier=EARLIER)


@pytest.fixture(scope="package")
def watched(right):
    models = {"healthy": right}
    for number, name in enumerate(PATIENTS, 1):
        models[f"patient {number}"] = cache_bugs.CATALOGUE[name].build(right)
    return watch.watch(models, Tokenizer(), TEXT, earlier=EARLIER)
