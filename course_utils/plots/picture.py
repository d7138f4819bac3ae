"""A figure as a picture: the bytes of a PNG, and shown in a notebook with its alternative text."""

import base64
import io

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from .look import DPI, WIDTH


def png(figure: Figure) -> bytes:
    """The figure as a PNG of 256 colours, at the course's resolution."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(small, format="png", optimize=True)
    return small.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook, once, with `alt` for those who cannot see it."""
    picture = base64.b64encode(png(figure)).decode()
    size = {"width": int(100 * WIDTH)}
    display(
        {"image/png": picture, "text/plain": repr(figure)},
        metadata={"image/png": {"alt": alt} | size},
        raw=True,
    )
    plt.close(figure)
