"""The range of an image's numbers, and from there to bytes: stated, or that of the type, never guessed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.errors import GraftError

BYTES = 255.0
# Pillow's modes of more than 8 bits -> the largest value of their type; None where the type tells nothing.
DEEP = {"I": None, "I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I;16N": 65535.0, "F": None}
LEAST_USED = 0.25  # the share of a range that values reach; below it, two bits and more of eight would be lost
ROUNDING = 1e-3  # by which a number from 0 to 1 may be off

Range = tuple[float, float]


@dataclass(frozen=True)
class Found:
    """The values of one image: its place, the largest value of its type (None: it tells none), lowest and highest."""

    place: str
    limit: float | None
    low: float
    high: float


def checked_range(pixel_range: Sequence[float] | None, key: str) -> Range | None:
    """The range of `<key>.pixel_range`; GraftError for one that is none."""
    if pixel_range is None:
        return None
    values = [float(value) for value in pixel_range]
    if len(values) != 2 or not np.isfinite(values).all() or values[0] >= values[1]:
        raise GraftError(
            f"{key}.pixel_range={list(pixel_range)}: it is the lowest and the highest value, black and white, such as "
            f"{key}.pixel_range=[0,4095]."
        )
    return values[0], values[1]


def range_by_type(limit: float | None, pixel_range: Range | None) -> Range:
    """Black and white: as stated, or by the type. Bytes keep theirs under a range that bytes cannot hold."""
    by_type = (0.0, 1.0 if limit is None else limit)
    if pixel_range is None:
        return by_type
    beyond = pixel_range[0] < 0 or pixel_range[1] > BYTES
    return by_type if limit == BYTES and beyond else pixel_range


def to_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers as uint8, 0 for `low` and 255 for `high`; what lies outside becomes the nearer of the two."""
    if values.dtype == np.uint8 and (low, high) == (0, BYTES):
        return values
    return (((values.astype(np.float64) - low) / (high - low)).clip(0, 1) * BYTES).round().astype(np.uint8)


def check_values(images: Sequence[Found], pixel_range: Range | None, key: str) -> tuple[str, ...]:
    """Notes on how the values of images are read.

    Raises GraftError where nothing says what is black and what is white: floats that are not from 0 to 1, whole numbers
    of 32 bits, and types of which the values use less than a quarter, such as 12 bits kept in 16.
    """
    deep = [image for image in images if image.limit != BYTES]
    if not deep:
        return ()
    low, high = min(image.low for image in deep), max(image.high for image in deep)
    if pixel_range is not None:
        outside = sum(image.low < pixel_range[0] or image.high > pixel_range[1] for image in deep)
        stated = f"{key}.pixel_range=[{pixel_range[0]:g},{pixel_range[1]:g}]"
        notes = [
            f"{outside:,} images have values outside {stated} (from {low:g} to {high:g}), which are read as its ends"
        ]
        return tuple(notes if outside else ())
    for limit in {image.limit for image in deep}:
        alike = [image for image in deep if image.limit == limit]
        low, high = min(image.low for image in alike), max(image.high for image in alike)
        largest = 1.0 if limit is None else limit
        if low < -ROUNDING or high > largest + ROUNDING or high < LEAST_USED * largest:
            kind = "their type does not tell" if limit is None else f"their type goes to {limit:g}"
            raise GraftError(
                f"{key}.pixel_range: {len(alike):,} images, the first of them {alike[0].place}, hold values from "
                f"{low:g} to {high:g}, and {kind} which of them are black and white. Say it: "
                f"'{key}.pixel_range=[{low:g},{high:g}]'"
            )
    floats = sum(image.limit is None for image in deep)
    return (f"{floats:,} images of floats are read as 0 (black) to 1 (white)",) if floats else ()
