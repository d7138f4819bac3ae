"""How rare words count in `unlikely`: where few are expected, chi-square is no measure."""

import torch

from course_utils.checks.draws import unlikely


def test_a_rare_word_may_come_up():
    shares = torch.tensor([0.7, 0.3 - 1e-5, 1e-5], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(shares.expand(3000, -1), 1500, True, generator=generator)
    counts = torch.stack([torch.bincount(row, minlength=3) for row in drawn])
    assert (counts[:, 2] > 0).sum() > 10
    assert not any(unlikely(row, shares) for row in counts)


def test_a_rare_word_does_not_come_up_often():
    shares = torch.tensor([1 - 1e-4, 1e-4], dtype=torch.float64)
    assert not unlikely(torch.tensor([9997, 3]), shares)
    assert unlikely(torch.tensor([9983, 17]), shares)


def test_a_word_that_is_expected_twenty_times_comes_up():
    shares = torch.tensor([0.976, 0.024], dtype=torch.float64)
    assert not unlikely(torch.tensor([990, 10]), shares)
    assert unlikely(torch.tensor([1000, 0]), shares)


def test_no_draws_are_not_unlikely():
    assert not unlikely(torch.tensor([0, 0]), torch.tensor([0.5, 0.5]))
