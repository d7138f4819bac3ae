"""What the tests of wrong caches compare with."""

import pytest
from helpers import cases_for, small_model


@pytest.fixture(scope="module")
def reference():
    return small_model()


@pytest.fixture(scope="module")
def few_cases(reference):
    """Enough to see every wrong cache: two different rows of five tokens."""
    return cases_for(reference, [(2, 5)])


@pytest.fixture
def on_no_other_device(monkeypatch):
    """Without the runs on PyTorch's `meta`, which take as long as all others together.

    Whatever is found wrong then is found by its logits.
    """
    for room in ("cache_bugs.probes", "evaluation.judge"):
        monkeypatch.setattr(f"course_utils.{room}.follows_its_device", lambda model, ids: None)
