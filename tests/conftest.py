"""Which cases are in the suite; what every test leaves behind is put away."""

import shutil

import matplotlib.pyplot as plt
import pytest
from samples import leave_out


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by the marks
def pytest_collection_modifyitems(items):
    leave_out(items)


@pytest.fixture(autouse=True)
def figures_are_closed():
    """pyplot keeps every figure until it is closed, and warns when there are many."""
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def browser():
    """Chromium, for all files: Playwright starts only once in a process."""
    from playwright.sync_api import sync_playwright

    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    path = next((name for name in found if name), None)
    assert path, "Chromium is not installed. On Debian and Ubuntu: apt install chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
