"""`kv_evaluate` refuses the course's caches with one small mistake in them.

A sample, the same each time: so many of each cache, half of them with `-m thorough`.
`benchmarks/cache_mutants.py` tries all mutants.
"""

import pytest
from mutated_caches import CACHES, verdict

pytestmark = pytest.mark.authors

OF_EACH = 6
LOUD = {"name", "attribute", "call", "keyword argument"}  # most of these raise an error at once
NO_LAYER = "self, x: Tensor, cache: Any=None, layer: int="
INIT = "super().__init__(vocab_size, {}, num_heads=num_heads, **kw)"
SAME = {  # no mistakes, and why
    "PreallocatedCache": {
        "dropped: check_rollback(length, self.length)": "it refuses what is never asked for",
    },
    "LeftPaddedCache": {
        f"{NO_LAYER}0 -> {NO_LAYER}-1": "each call says which layer it is in",
        "q.size(-2) -> q.size(2)": "q has four dimensions: the last but one is number 2",
        f"{INIT.format('d_model, *args')} -> {INIT.format('*args, d_model')}": "args is empty here",
    },
}


def sample(cache):
    """Mutants spread evenly over a cache, wherever in its file that is."""
    quiet = [mutant for mutant in cache.mutants() if mutant.kind not in LOUD]
    step = len(quiet) // OF_EACH
    return quiet[step // 2 :: step][:OF_EACH]


def change(mutant):
    return mutant.what.split(": ", 1)[1]


@pytest.mark.sampled(2)
@pytest.mark.parametrize("cache", CACHES, ids=lambda cache: cache.classes.split()[0])
@pytest.mark.parametrize("half", [0, 1])
def test_a_small_mistake_is_refused(cache, half):
    """One that is accepted shows a gap in `kv_evaluate`, or is no mistake and belongs into SAME."""
    chosen, same = sample(cache), SAME.get(cache.classes.split()[0], {})
    assert set(same) <= set(map(change, chosen))
    for mutant in chosen[half::2]:
        word, problem = verdict(cache, mutant.source)
        assert word in ("refused", "accepted") and not problem.startswith("raised"), mutant.what
        assert (word == "accepted") == (change(mutant) in same), mutant.what
