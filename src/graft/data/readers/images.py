"""Image files: which are read, what a look into one finds, and their pixels as bytes."""

import functools
import hashlib
import io
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from graft.data.readers.folders import file_name, file_problem
from graft.data.readers.pixels import BYTES, DEEP, range_by_type, to_bytes
from graft.data.readers.similar import SIDE, in_mode, thumbnail_of
from graft.data.threads import in_parts
from graft.errors import GraftError, first_line

# Formats that Pillow recognises and cannot decode by itself, or decodes by running another program.
NOT_READ = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
PAGED = {"TIFF", "GIF", "WEBP", "PNG"}  # formats whose further pages or frames are samples in their own right
THREADS = 4
KEPT = 2**28  # bytes of small images that are kept from the look into their files until they are asked for
TOGETHER = 64  # small files that a thread reads at a time
BY_SIGHT = (1, 3)  # channels that every image has; another number is that of the file's own bands


@functools.cache
def extensions() -> frozenset[str]:
    """Endings of the files that are read, in lower case."""
    Image.preinit()  # before all others: Pillow tries formats in this order, and nearly all files are of these
    endings = Image.registered_extensions().items()
    return frozenset(ending for ending, name in endings if name in Image.OPEN and name not in NOT_READ)


@dataclass(frozen=True)
class Decoded:
    """An image as it stands in a file."""

    pixels: Image.Image | np.ndarray  # of 8 bits, or numbers `(H, W)` or `(H, W, C)` of another type
    limit: float | None = BYTES  # the largest value that the file's type can hold; None where it does not tell
    pages: int = 1
    whole: bool = True  # whether it has the size that it has in the file


@dataclass
class Look:
    """What a look into a file found."""

    digest: bytes  # of its bytes
    problem: str = ""  # why it cannot be used
    limit: float | None = BYTES
    low: float = 0.0  # its values, where they are not of 8 bits
    high: float = 0.0
    pages: int = 1
    bands: int = 0  # where it has another number of them than is asked for
    thumbnail: np.ndarray | None = None  # of which the hash is made, with those of other images; None for a small one
    hash: np.ndarray | None = None  # see graft.data.readers.similar; None for a small image
    image: Image.Image | None = None  # of 8 bits, where all of it was decoded; only for who asked for the look


def look_into(path: Path, channels: int) -> Look:
    """Decode a file once, whatever its decoder raises."""
    if problem := file_problem(path):
        return Look(b"", problem)
    try:
        content = path.read_bytes()
    except OSError as error:
        return Look(b"", f"it cannot be read ({error.strerror})")
    return look_into_content(content, channels)


def look_into_content(content: bytes, channels: int) -> Look:
    """The same of a file's bytes."""
    digest = hashlib.sha256(content).digest()
    if not content:
        return Look(digest, "the file is empty")
    try:
        decoded = read_image(io.BytesIO(content), shorter=SIDE, count=True)
        look = look_at_pixels(decoded, digest, channels)
        if decoded.whole and isinstance(decoded.pixels, Image.Image):
            look.image = decoded.pixels
        return look
    except Exception as error:  # a decoder may raise anything; whatever it is, this file cannot be used
        return Look(digest, f"it cannot be read as an image ({detail(error)})")


def look_at_pixels(decoded: Decoded, digest: bytes, channels: int) -> Look:
    """What is found in the pixels of an image, whose content has a digest."""
    bands = bands_of(decoded)
    if channels not in BY_SIGHT and bands != channels:
        return Look(digest, f"it has {bands} bands, not {channels}", bands=bands)
    if channels in BY_SIGHT and bands > 4:
        return Look(digest, f"it has {bands} bands; channels={bands} reads them as channels", bands=bands)
    low, high = 0.0, 0.0
    if isinstance(decoded.pixels, np.ndarray):
        if not np.isfinite(decoded.pixels).all():
            return Look(digest, "a value is NaN or infinite")
        low, high = float(decoded.pixels.min()), float(decoded.pixels.max())
    return Look(digest, "", decoded.limit, low, high, decoded.pages, thumbnail=thumbnail_of(decoded.pixels))


def detail(error: Exception) -> str:
    """What a decoder says, without the file or stream that it read from, which messages name themselves."""
    return re.sub(r"\s+(<_io\..*>|'.*[/\\].*')$", "", first_line(error)).rstrip(".") or type(error).__name__


def read_image(source: Path | BinaryIO, shorter: int | None = None, count: bool = False) -> Decoded:
    """The first page or frame of an image file, in the type that the file has; raises what its decoder raises.

    With `shorter`, a JPEG that is at least four times as large is decoded at a half, a quarter or an eighth of its
    size, in that share of the time; its shorter side is still at least twice `shorter`. Pages count where asked for.
    """
    try:
        image = Image.open(source)
    except Image.UnidentifiedImageError:
        if (many := many_bands(source)) is not None:
            return many
        raise
    with image:
        form = image.format
        pages = getattr(image, "n_frames", 1) if count and form in PAGED else 1
        if ";16" in str(image.tile) and image.mode not in DEEP:  # 16 bits a colour, of which Pillow keeps 8
            return Decoded(sixteen_bit_colour(source), DEEP["I;16"], pages)
        size = image.size
        if shorter is not None:
            image.draft(None, (2 * shorter, 2 * shorter))
        whole = image.size == size
        ImageOps.exif_transpose(image, in_place=True)  # which loads it
        if image.mode not in DEEP:
            return Decoded(image, BYTES, pages, whole)
        sixteen = image.mode == "I" and form in ("PNG", "PPM")
        return Decoded(np.array(image), DEEP["I;16"] if sixteen else DEEP[image.mode], pages)


def is_deep(path: Path) -> bool:
    """Whether an image file says that it has more than 8 bits a colour; False for what Pillow cannot open."""
    try:
        with Image.open(path) as image:
            return image.mode in DEEP or ";16" in str(image.tile)
    except (OSError, ValueError):
        return False


def sixteen_bit_colour(source: Path | BinaryIO) -> np.ndarray:
    """Colours of 16 bits `(H, W, C)`: Pillow gives one byte of each, which one depends on the order that it is told."""
    first, second = one_byte(source, "B"), one_byte(source, "L")
    assert first is not None
    if second is None:  # there is one order for grey with transparency
        return first * 257
    with Image.open(rewound(source)) as image:
        big = ";16B" in str(image.tile) or (";16N" in str(image.tile) and sys.byteorder == "big")
    high, low = (first, second) if big else (second, first)
    return high * 256 + low


def one_byte(source: Path | BinaryIO, order: str) -> np.ndarray | None:
    """The byte that comes first in colours of 16 bits (order B), or second (L), uint16; None where Pillow cannot."""
    with Image.open(rewound(source)) as image:
        image.tile = [tile._replace(args=in_order(tile.args, order)) for tile in image.tile]
        try:
            return np.array(image).astype(np.uint16)
        except ValueError:
            if order == "L":
                return None
            raise


def in_order(args: Any, order: str) -> Any:
    """The arguments of a decoder with another order of bytes."""
    if isinstance(args, tuple):
        return tuple(in_order(one, order) if isinstance(one, str) else one for one in args)
    return re.sub(";16[BLN]", f";16{order}", args)


def rewound(source: Path | BinaryIO) -> Path | BinaryIO:
    """A file or a stream from its start."""
    if not isinstance(source, Path):
        source.seek(0)
    return source


def many_bands(source: Path | BinaryIO) -> Decoded | None:
    """A TIFF of more bands, or more bits, than Pillow reads; None where the file is none."""
    if (opened := tiff_of(content_of(source))) is None:
        return None
    with opened as tiff:
        page = tiff.pages[0]
        values = page.asarray()
        if values.ndim == 3 and page.axes == "SYX":
            values = values.transpose(1, 2, 0)
        if values.ndim not in (2, 3):
            raise ValueError(f"its first page has the axes {page.axes}")
        limit = float(np.iinfo(values.dtype).max) if values.dtype.kind == "u" and values.dtype.itemsize < 4 else None
        return Decoded(np.ascontiguousarray(values), limit, len(tiff.pages))


def tiff_of(content: bytes) -> Any:
    """A TIFF opened by a library that reads any number of bands and bits; None where the content is none."""
    if content[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    try:
        import tifffile
    except ModuleNotFoundError:
        raise ValueError("it has more bands or bits than Pillow reads; pip install '.[tiff]' reads them") from None
    return tifffile.TiffFile(io.BytesIO(content))


def content_of(source: Path | BinaryIO) -> bytes:
    """All bytes of a file."""
    if isinstance(source, Path):
        return source.read_bytes()
    source.seek(0)
    return source.read()


def bands_of(decoded: Decoded) -> int:
    """How many values a pixel has; of a palette those of its colours."""
    pixels = decoded.pixels
    if isinstance(pixels, np.ndarray):
        return 1 if pixels.ndim == 2 else pixels.shape[2]
    return len((pixels.convert() if pixels.mode in ("P", "PA") else pixels).getbands())


class Decodings:
    """Small images that a look has decoded, up to KEPT bytes: each is given once, so that it is not decoded again."""

    def __init__(self) -> None:
        self._pixels: dict[Path | bytes, np.ndarray] = {}
        self._bytes = 0

    def put(self, file: Path, image: Image.Image, channels: int, pixel_range: tuple[float, float] | None) -> None:
        """Keep the pixels of a file, where there is room for them."""
        if self._bytes < KEPT:
            self._pixels[file] = image_array(image, channels, pixel_range)
            self._bytes += self._pixels[file].nbytes

    def pop(self, file: Path | bytes, shorter: int | None) -> np.ndarray | None:
        """The pixels `(H, W, C)` of a file, unless read_image would give fewer of them for that `shorter`."""
        pixels = self._pixels.pop(file, None)
        if pixels is None or (shorter is not None and min(pixels.shape[:2]) >= 4 * shorter):
            return None
        self._bytes -= pixels.nbytes
        return pixels

    def __reduce__(self) -> tuple[type["Decodings"], tuple[()]]:
        """Worker processes get none."""
        return Decodings, ()


class ImageFiles(Sequence):
    """Image files, or what they hold as bytes, decoded when asked for."""

    def __init__(
        self,
        files: Sequence[Path | bytes],
        channels: int,
        pixel_range: tuple[float, float] | None = None,
        decodings: Decodings | None = None,
    ) -> None:
        self.files = files
        self.channels = channels
        self.pixel_range = pixel_range
        self.decodings = decodings or Decodings()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]  # nobody slices it
        return self.read(index, None)

    def read(self, index: int, shorter: int | None) -> Tensor:
        """An image, which may be going to be resized to a shorter side of `shorter` pixels at most."""
        file = self.files[index]
        if (pixels := self.decodings.pop(file, shorter)) is not None:
            return channels_first(pixels)
        return decode(file, self.channels, shorter, self.pixel_range)


def decode(
    file: Path | bytes, channels: int = 3, shorter: int | None = None, pixel_range: tuple[float, float] | None = None
) -> Tensor:
    """Image file as uint8 `(channels, H, W)`, see read_image and image_tensor; GraftError for a broken file."""
    try:
        decoded = read_image(io.BytesIO(file) if isinstance(file, bytes) else file, shorter)
        return image_tensor(decoded.pixels, channels, pixel_range, decoded.limit)
    except Exception as error:
        name = file_name(file)
        raise GraftError(f"{name} cannot be read as an image ({detail(error)}). Replace or remove the file.") from error


def image_tensor(
    pixels: Image.Image | np.ndarray,
    channels: int = 3,
    pixel_range: tuple[float, float] | None = None,
    limit: float | None = BYTES,
) -> Tensor:
    """Pixels of any type as uint8 `(channels, H, W)`, see image_array."""
    return channels_first(image_array(pixels, channels, pixel_range, limit))


def channels_first(pixels: np.ndarray) -> Tensor:
    """Pixels uint8 `(H, W, C)` as a tensor `(C, H, W)`."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_array(
    pixels: Image.Image | np.ndarray,
    channels: int = 3,
    pixel_range: tuple[float, float] | None = None,
    limit: float | None = BYTES,
) -> np.ndarray:
    """Pixels of any type as uint8 `(H, W, channels)`, 0 to 255 for `pixel_range`; transparency over white.

    Without a range it is that of the type: 0 to `limit`, or 0 to 1 where there is none.
    """
    if isinstance(pixels, Image.Image) and pixels.mode in DEEP:
        limit = DEEP[pixels.mode]
        pixels = np.array(pixels)
    low, high = range_by_type(limit, pixel_range)
    if isinstance(pixels, np.ndarray):
        pixels = to_bytes(pixels, low, high)
        low, high = 0.0, BYTES
        pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        if channels in BY_SIGHT:
            pixels = Image.fromarray(pixels)
    if isinstance(pixels, Image.Image):
        if channels in BY_SIGHT:
            if pixels.has_transparency_data:
                pixels = pixels.convert("RGBA")
                pixels = Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels)
            pixels = in_mode(pixels, "L" if channels == 1 else "RGB")
        elif pixels.mode in ("P", "PA"):
            pixels = pixels.convert()
        pixels = np.array(pixels)
    values = pixels if (low, high) == (0.0, BYTES) else to_bytes(pixels, low, high)
    height, width = values.shape[:2]
    return values.reshape(height, width, channels)


def file_digests(files: Sequence[Path]) -> list[bytes]:
    """SHA-256 of each file's bytes; empty where it cannot be read."""
    with ThreadPoolExecutor(THREADS) as pool:
        return in_parts(pool, lambda some: [*map(file_digest, some)], files, TOGETHER)


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's bytes; empty where it cannot be read."""
    if file_problem(path):  # reading a pipe would wait forever
        return b""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
