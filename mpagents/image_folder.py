"""A folder of image files as data for `mpagents fit`: frames, and where images lie in subfolders, a label for each.

photos/cat/001.png, photos/dog/002.jpg  →  x uint8 [N, H, W, C], label int64 [N] (subfolders in alphabetical order)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from generative.data import Rows

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True)
class ImageSettings:
    """The settings of a folder of images."""

    size: tuple[int, int] | None = None  # height and width that all are resized to, without aliasing; pixels
    grey: bool = False


def image_files(folder: Path) -> list[Path]:
    """The images below a folder, by name; what lies in hidden folders is left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def image_folder(folder: Path, settings: ImageSettings = ImageSettings()) -> Rows:
    """All images below a folder, in memory; of moving ones the first frame.

    Raises ValueError where there are none, one can't be read, or their sizes differ and no size is given.
    """
    files = image_files(folder)
    if not files:
        raise ValueError(f"{folder} holds neither a recording nor images ({', '.join(sorted(SUFFIXES))})")
    frames = [_frame(path, settings) for path in files]
    shapes = {frame.shape: path for frame, path in zip(frames, files)}
    if len(shapes) > 1:
        different = ", ".join(f"{path.name} is {height}×{width}" for (height, width, _), path in list(shapes.items())[:3])
        raise ValueError(f"{folder} has images of different sizes ({different}); set size, as in --source size=[32,32]")
    columns = {"x": np.stack(frames)}
    parents = [path.relative_to(folder).parts[0] if path.parent != folder else "" for path in files]
    classes = sorted(set(parents))
    if len(classes) > 1 and "" not in classes:
        columns["label"] = np.array([classes.index(parent) for parent in parents])
    return Rows(columns)


def _frame(path: Path, settings: ImageSettings) -> np.ndarray:
    """uint8 [H, W, C], C 1 or 3."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if settings.grey else "RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} can't be read as an image: {error}") from error
    if settings.size is not None:
        image = image.resize(settings.size[::-1], Image.Resampling.BOX)
    return np.asarray(image).reshape(image.height, image.width, -1)
