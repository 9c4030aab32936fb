"""Figures as PNG files of the same bytes each time, and as pictures of a page."""

import base64
import struct
from io import BytesIO

from matplotlib.figure import Figure

from pyro_dpvae.report.markup import Markup, element

__all__ = ["picture", "png"]

_DPI = 110


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file that says nothing of when and by what it was written."""
    file = BytesIO()
    options = {"optimize": True}
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None}, pil_kwargs=options)
    return file.getvalue()


def picture(content: bytes, *, alt: str) -> Markup:
    """Return a PNG file as an image within the page."""
    width, height = struct.unpack(">II", content[16:24])
    source = "data:image/png;base64," + base64.b64encode(content).decode()
    return element("img", src=source, alt=alt, width=width, height=height)
