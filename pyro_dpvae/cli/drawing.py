"""The picture files that commands write."""

from io import BytesIO
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from pyro_dpvae._files import write_whole

__all__ = ["picture_file", "save_figure"]


def picture_file(name: str) -> Path:
    """Return the file of a picture that ``--out`` names.

    Raises:
        ValueError: if it is a folder, or its ending is not that of a picture format.
    """
    path = Path(name)
    known = FigureCanvasBase.get_supported_filetypes()
    if path.is_dir() or path.suffix.removeprefix(".").lower() not in known:
        remedy = path / "samples.png" if path.is_dir() else f"{name or 'samples'}.png"
        raise ValueError(
            f"--out must name a picture, such as a file ending in .png or .pdf, got {name!r}; "
            f"give {remedy}"
        )
    return path


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure to a file, in the format of its ending.

    Raises:
        OSError: if the file cannot be written, with the file and the remedy.
    """
    content = BytesIO()
    figure.savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_whole(path, content.getvalue())
