"""A figure as a picture: the bytes of a PNG, and shown in a notebook with its alternative text."""

import base64
import io

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from .alt_texts import alt_text
from .look import DPI, WIDTH


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours, at the course's resolution."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def show(figure: Figure, key: str, **values: object) -> None:
    """Display a figure in a notebook, once, with its alt text for those who cannot see it.

    `key` and `values` are those of `alt_text`, and so are the errors.
    """
    alt = alt_text(key, **values)
    picture = base64.b64encode(png(figure)).decode()
    size = {"width": int(100 * WIDTH)}
    display(
        {"image/png": picture, "text/plain": repr(figure)},
        metadata={"image/png": {"alt": alt} | size},
        raw=True,
    )
    plt.close(figure)
