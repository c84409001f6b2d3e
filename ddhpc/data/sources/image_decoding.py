"""Image files to arrays: decoding, common mode, resizing; and what is done to all images of a set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ddhpc.data.sources.preparation import Kind, Preparation, UnusableFile, because

# Large images are what the program is for; Pillow's limit of 179 megapixels protects web servers.
Image.MAX_IMAGE_PIXELS = None

Mode = Literal["grey", "16-bit grey", "colour"]
"""uint8 with one channel, uint16 with one channel, uint8 with three channels."""
Resize = Literal["crop", "stretch"]
Filter = Literal["lanczos"]
Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in an upright image, in its pixels."""

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
GREY = ("1", "L", "LA", "La", *DEEP)


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What an image file turns out to be."""

    mode: str
    """Pillow's."""
    size: tuple[int, int]
    """(height, width) as stored."""
    largest: int
    """Largest value of a pixel where the mode is one of DEEP, else 0."""


def endings() -> tuple[str, ...]:
    """Endings of the file names that Pillow can read, lower case with the dot."""
    return tuple(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def examine(path: Path) -> ImageFacts:
    """Decodes a whole file; raises whatever the decoder raises where it is damaged or not an image."""
    with Image.open(path) as image:
        mode, size, largest = image.mode, image.size[::-1], _largest(image)
        image.draft(None, (1, 1))  # JPEG: reads everything, but computes an eighth of the pixels
        _convert(ImageOps.exif_transpose(image), "grey", white(largest))
    return ImageFacts(mode=mode, size=size, largest=largest)


def white(largest: int) -> int:
    """The value of white in deep images of a set whose largest is this: 255, 511, 1023, ... as their bits allow.

    Scanners of 10, 12 or 14 bits write files of 16, whose header does not tell; the values do.
    """
    return (1 << max(8, largest.bit_length())) - 1


def common_mode(modes: Collection[str]) -> Mode:
    """The mode that holds images of all these modes of Pillow: colour if any is, else the deepest grey."""
    if not set(modes) <= set(GREY):
        return "colour"
    return "16-bit grey" if set(modes) & set(DEEP) else "grey"


@dataclass(frozen=True, kw_only=True)
class ImagePreparation(Preparation):
    """What all images of a set become."""

    kind: ClassVar[Kind] = "images"
    mode: Mode
    white: int
    """Value of white in images of DEEP modes."""
    size: tuple[int, int]
    """(height, width)."""
    resize: Resize
    filter: Filter = "lanczos"
    """Of the resizing."""

    def __post_init__(self) -> None:
        whites = [white(0), *([] if self.mode == "grey" else (white(1 << bits) for bits in range(8, 16)))]
        if self.white not in whites:
            raise ValueError(f"has white {self.white} in {self.mode}; expected {' or '.join(map(str, whites))}")
        if min(self.size) < 1:
            raise ValueError(f"has size {list(self.size)}; expected at least 1 pixel along each axis")

    @property
    def channels(self) -> int:
        """See `Preparation`."""
        return 3 if self.mode == "colour" else 1

    @property
    def image_shape(self) -> tuple[int, int]:
        """See `Preparation`."""
        return self.size

    @property
    def stored_dtype(self) -> np.dtype:
        """See `Preparation`."""
        return np.dtype(np.uint16 if self.mode == "16-bit grey" else np.uint8)

    def apply(self, path: Path) -> np.ndarray:
        """See `Preparation`: whatever becomes the mode within such a set, as 8-bit grey beside colour, is converted.

        Refused are colour for a grey set, images of more than 8 bits for one of at most 8, and pixels above white.
        """
        try:
            return decoded(path, self)
        except Exception as error:
            raise UnusableFile(path, why_unreadable(error)) from error


def why_unreadable(error: Exception) -> str:
    """Why an image cannot be used, in one line."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else because(error)


def decoded(path: Path, target: ImagePreparation) -> np.ndarray:
    """The image [C, height, width] of the mode's dtype, resized with antialiasing (Lanczos).

    "crop" scales the image to cover it and cuts out the centre; "stretch" ignores
    the aspect. Raises whatever the decoder raises, and ValueError where the image would make another set of this one.
    """
    with Image.open(path) as stored:
        _check_fits(stored, target)
        image = _convert(ImageOps.exif_transpose(stored), target.mode, target.white)
    image = image.resize(target.size[::-1], Image.Resampling.LANCZOS, box=seen(image.size, target))
    array = np.asarray(image)
    if target.mode == "16-bit grey":
        array = np.rint(array).clip(0, target.white).astype(np.uint16)
    return array.transpose(2, 0, 1) if target.mode == "colour" else array[None]


def seen(size: tuple[int, int], target: ImagePreparation) -> Box:
    """The part of an upright image (width, height) that becomes the prepared one; that of `ImageOps.fit` for "crop".

    Example:
        >>> seen((40, 30), ImagePreparation(mode="grey", white=255, size=(8, 8), resize="crop"))
        (5.0, 0.0, 35.0, 30.0)
    """
    width, height = map(float, size)
    ratio = target.size[1] / target.size[0]
    if target.resize == "stretch" or width / height == ratio:
        return 0.0, 0.0, width, height
    if width / height > ratio:
        kept = ratio * height
        return (width - kept) / 2, 0.0, (width - kept) / 2 + kept, height
    kept = width / ratio
    return 0.0, (height - kept) / 2, width, (height - kept) / 2 + kept


def picture(path: Path, target: ImagePreparation) -> Image.Image:
    """The whole image of a file upright, L or RGB, 8 bits a channel, to look at; raises as `decoded`."""
    with Image.open(path) as stored:
        _check_fits(stored, target)
        return _convert(ImageOps.exif_transpose(stored), "colour" if target.mode == "colour" else "grey", target.white)


def _check_fits(image: Image.Image, target: ImagePreparation) -> None:
    """ValueError unless the mode and white of a set stay what they are with this image in it."""
    largest = _largest(image)
    own, alone = {"grey": "L", "16-bit grey": "I;16", "colour": "RGB"}[target.mode], common_mode({image.mode})
    if common_mode({image.mode, own}) != target.mode:
        raise ValueError(f"{alone} (mode {image.mode}), expected {target.mode} as the images of the set are")
    if largest > target.white:
        raise ValueError(f"pixels up to {largest:,}, expected at most {target.white:,}, which is white in the set")


def _largest(image: Image.Image) -> int:
    """Largest value of a pixel where the mode is one of DEEP, else 0; ValueError for values without a known range."""
    if image.mode == "F":
        raise ValueError("float pixels, which have no fixed range")
    if image.mode not in DEEP:
        return 0
    deep = np.asarray(image)
    low, high = int(deep.min()), int(deep.max())
    if low < 0 or high > 65535:
        raise ValueError(f"pixels from {low} to {high}, expected at most 16 bits")
    return high


def _convert(image: Image.Image, mode: Mode, white: int) -> Image.Image:
    """To L, RGB or, for 16-bit grey, F in 0..white; transparency is laid on white."""
    if image.mode in DEEP:
        deep = np.asarray(image)
        if mode == "16-bit grey":
            return Image.fromarray(deep.astype(np.float32))
        image = Image.fromarray(np.rint(deep * (255 / white)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if mode == "colour":
        return image.convert("RGB")
    grey = image.convert("L")
    return grey if mode == "grey" else Image.fromarray(np.asarray(grey) * np.float32(white / 255))
