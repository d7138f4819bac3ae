"""What the tests of wrong caches compare with."""

from importlib import import_module

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
    for name in ("cache_bugs.probes", "evaluation.judge"):
        room = import_module(f"course_utils.{name}")  # `cache_bugs.probes` is a function, too
        monkeypatch.setattr(room, "follows_its_device", lambda model, ids: None)
