"""What every test leaves behind is put away."""

import matplotlib.pyplot as plt
import pytest


@pytest.fixture(autouse=True)
def figures_are_closed():
    """pyplot keeps every figure until it is closed, and warns when there are many."""
    yield
    plt.close("all")
