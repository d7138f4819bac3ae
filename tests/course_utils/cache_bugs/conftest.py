"""What the tests of wrong caches compare with."""

import pytest
from helpers import cases_for, small_model


@pytest.fixture(scope="module")
def reference():
    return small_model()


@pytest.fixture(scope="module")
def few_cases(reference):
    """Enough to see most wrong caches: two different rows of five tokens."""
    return cases_for(reference, [(2, 5)])
