"""The site, built once for all files that look at it."""

import os
from pathlib import Path

import pytest

import authoring.site.__main__ as website


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A site that was just built, with warnings as errors: here, or before, in COURSE_SITE."""
    if "COURSE_SITE" in os.environ:
        return Path(os.environ["COURSE_SITE"]).resolve(strict=True)
    folder = tmp_path_factory.mktemp("site")
    assert website.build(site=folder) == 0
    return folder.resolve()
