"""A folder of classes for the tests of sources, and functions that draw and name images."""

from pathlib import Path

from PIL import Image

from convnextv2.data.source import Source


def draw_grey(path: Path, grey: int = 0) -> None:
    """Write an image of 4 x 4 px in one shade of grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(path)


def relative(source: Source, root: Path) -> list[str]:
    """The paths of a source's images below `root`."""
    return [str(Path(name).relative_to(root)) for name in source.names]
