"""Whether drawn tokens come up as often as they should: a chi-square test."""

import torch
from torch import Tensor

SO_RARE = 1e-9  # how often the right answer may be refused
LEAST = 25  # expected draws from which on a word is compared by its own


def unlikely(counts: Tensor, probabilities: Tensor) -> bool:
    """Whether draws with these probabilities give such counts less than once in 10⁹ times.

    Words that are expected less often than `LEAST` are counted as one, which comes up as in a
    Poisson distribution. One that cannot come up, and did, is always unlikely.
    """
    counts, expected = counts.double(), probabilities.double() * counts.sum()
    if counts[expected == 0].any():
        return True
    few = expected < LEAST
    seen, wanted = counts[few].sum(), expected[few].sum()
    if wanted > 0:
        as_many = torch.special.gammainc(seen, wanted)
        as_few = torch.special.gammaincc(seen + 1, wanted)
        if min(as_many, as_few) < SO_RARE:
            return True
    seen, wanted = counts[~few], expected[~few]
    square = ((seen - wanted).square() / wanted).sum()
    freedom = torch.tensor(max(len(wanted) - 1, 1) / 2, dtype=torch.float64)
    return bool(torch.special.gammaincc(freedom, square / 2) < SO_RARE)
