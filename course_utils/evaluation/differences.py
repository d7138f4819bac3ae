"""Where logits differ, and by how much (notebook 05)."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Difference:
    """The first place where logits are wrong, and by how much."""

    row: int
    position: int
    error: float
    largest: float

    def __str__(self) -> str:
        return (
            f"first differs at position {self.position} of row {self.row}, by {self.error:.2g} "
            f"(largest difference {self.largest:.2g})"
        )


def first_difference(
    expected: Tensor, actual: Tensor, tolerance: float, origin: tuple[int, int] = (0, 0)
) -> Difference | None:
    """Compare logits (B, T, V); None if all agree within `tolerance`. NaN never agrees.

    Earliest position first, then lowest row; both count from `origin`, (row, position).
    Raises ValueError if the shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(
            f"logits have shape {tuple(actual.shape)}, expected {tuple(expected.shape)}: one row "
            "of logits for each token that was fed in"
        )
    same_device = expected.device == actual.device
    if same_device and bool(((expected - actual).abs() <= tolerance).all()):
        return None
    error = (expected.cpu().double() - actual.cpu().double()).abs().nan_to_num(math.inf).amax(-1)
    wrong = (error > tolerance).nonzero().tolist()
    if not wrong:
        return None
    row, position = min(wrong, key=lambda where: (where[1], where[0]))
    size, largest = error[row, position].item(), error.max().item()
    return Difference(row + origin[0], position + origin[1], size, largest)
