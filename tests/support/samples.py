"""Long lists of cases: of a test marked `sampled(n)` each n-th case runs in the suite.

The others are marked `thorough`, too: `-m thorough` runs what the suite leaves out, `-m sampled`
these tests with all their cases.
"""

from collections import Counter
from collections.abc import Sequence

import pytest


def leave_out(items: Sequence[pytest.Item]) -> None:
    """Mark the cases that the suite leaves out; it keeps the first of each test, and each n-th."""
    places: Counter[str] = Counter()
    for item in items:
        if (mark := item.get_closest_marker("sampled")) is None:
            continue
        [every] = mark.args
        test = item.nodeid.partition("[")[0]
        if places[test] % every:
            item.add_marker("thorough")
        places[test] += 1
