"""What `plots` has besides figures: a computed title, and a picture in a notebook."""

import base64
import io
import json
import struct

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from figure_samples import FIGURES
from figure_samples.tables import sweep
from PIL import Image

from course_utils import plots
from course_utils.benchmark import NO_CACHE, PREALLOCATED
from course_utils.plots import look, picture
from course_utils.plots.n06_latency_sweep import _finding, _ratio


def finding(times: pd.DataFrame) -> str:
    return _finding(1000, _ratio(times, PREALLOCATED).loc[1000])


def test_the_title_of_the_sweep_is_computed():
    times = sweep()
    for factor in (1, 3):
        slower = times.copy()
        slower.loc[slower["contender"] == NO_CACHE, "total"] *= factor
        ratio = _ratio(slower, PREALLOCATED).loc[1000].median()
        assert finding(slower) == f"1000 tokens: {ratio:.1f} times faster with a KV cache"
    cached = times["contender"] == PREALLOCATED
    slow = times.assign(total=times["total"].where(~cached, 100 * times["total"]))
    assert "times slower" in finding(slow)
    same = times.assign(total=1.0 + 0.1 * ((times["round"] == 1) & cached) - 0.1 * (
        (times["round"] == 2) & cached))  # fmt: skip
    assert finding(same) == "1000 tokens: no clear difference with a KV cache"


def test_a_figure_is_shown_with_its_alt_text_and_is_not_transparent(monkeypatch):
    shown = []
    monkeypatch.setattr(picture, "display", lambda *data, **how: shown.append((*data, how)))
    plots.show(FIGURES["recall_bars"](), "recall_bars")
    ((data, how),) = shown
    assert how["metadata"]["image/png"]["alt"].startswith("Bars with the number of questions")
    assert json.dumps(data)
    drawn = base64.b64decode(data["image/png"])
    width, height = struct.unpack(">II", drawn[16:24])
    assert (width, height) == (int(look.WIDTH * look.DPI), int(look.LOW * look.DPI))
    image = Image.open(io.BytesIO(drawn))
    assert "transparency" not in image.info
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert plt.get_fignums() == []


def test_an_alt_text_is_one_line_with_the_values_that_the_cell_gives(monkeypatch):
    shown = []
    monkeypatch.setattr(picture, "display", lambda *_, metadata, **how: shown.append(metadata))
    plots.show(FIGURES["growth"](), "growth", both="1.7 and 0.9")
    ((alt, _),) = (metadata["image/png"].values() for metadata in shown)
    assert alt == (
        "Total time against tokens on logarithmic axes with fitted straight lines. "
        "The exponents are 1.7 and 0.9."
    )


def test_a_figure_without_alt_text_is_not_shown(monkeypatch):
    monkeypatch.setattr(picture, "display", lambda *data, **how: pytest.fail("shown"))
    figure = FIGURES["growth"]()
    with pytest.raises(ValueError, match="'grows'; the nearest one is 'growth'"):
        plots.show(figure, "grows")
    with pytest.raises(ValueError, match=r"in data/alt_texts\.toml has the key 'Two lines\.'"):
        plots.show(figure, "Two lines.")
    with pytest.raises(KeyError, match="both"):
        plots.show(figure, "growth")
    plt.close(figure)
