"""Files as users have them: a clean one of each kind, and what can be wrong with it."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

Damage = Callable[[Path], object]

WORDS = ("good fine bright", "bad dull slow")


def random_image(seed: int, mode: str = "RGB", side: int = 12) -> Image.Image:
    """A small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    """An image file's bytes."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def sound(seed: int = 0, frames: int = 800, channels: int = 1) -> np.ndarray:
    """Quiet noise, float32 `(frames, channels)`."""
    return (0.1 * np.random.default_rng(seed).normal(size=(frames, channels))).astype(np.float32)


def recorded(values: np.ndarray, form: str = "WAV", kind: str | None = None, rate: int = 8000) -> bytes:
    """A sound file's bytes."""
    file = io.BytesIO()
    soundfile.write(file, values, rate, format=form, subtype=kind)
    return file.getvalue()


def saved(save: Callable[..., None], *arrays: object, **named: object) -> bytes:
    """What numpy writes."""
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


# Damage


def content(data: bytes) -> Damage:
    """Other content."""
    return lambda path: path.write_bytes(data)


def changed(change: Callable[[bytes], bytes]) -> Damage:
    """Content made of what is there."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def half(data: bytes) -> bytes:
    """The first half, as an interrupted copy leaves it."""
    return data[: len(data) // 2]


def zeroed_end(data: bytes) -> bytes:
    """The right length with a second half of zeros, as a download that was interrupted leaves it."""
    return half(data) + bytes(len(data) - len(data) // 2)


def flipped(data: bytes) -> bytes:
    """One wrong bit in the middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def in_place_of(make: Callable[[Path], object]) -> Damage:
    """Something else where the file was."""

    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose content is a few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"abc")) + chunk(b"IEND", b"")


def zipped(name: str, data: bytes) -> bytes:
    """A zip archive of one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def wave_header(data: bytes, place: int, form: str, value: int) -> bytes:
    """A WAV file with another number in its header."""
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


HTML = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>Log in to go on</body></html>\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
UNREADABLE = Path("/proc/self/mem")  # reading its first byte is an input/output error, for every user
FLOAT_IMAGE = np.linspace(0, 1, 144, dtype=np.float32).reshape(12, 12)

# Whatever stands where a file of samples is expected: what is done to it, and what the message says.
EVERY_FILE: dict[str, tuple[Damage, str]] = {
    "empty": (content(b""), "empty|cannot identify|No data left|MNIST"),
    "a folder": (in_place_of(Path.mkdir), "folder"),
    "a fifo": (in_place_of(os.mkfifo), "no ordinary file|no such file"),
    "a link to nowhere": (in_place_of(lambda path: path.symlink_to("nowhere")), "link|not there|no such file|no file"),
    "a link to itself": (in_place_of(lambda path: path.symlink_to(path.name)), "link|no such file|no file"),
    "unreadable": (in_place_of(lambda path: path.symlink_to(UNREADABLE)), "cannot be read|not a readable"),
}

IMAGES: dict[str, tuple[Damage, str]] = EVERY_FILE | {
    "a web page": (content(HTML), "cannot be read as an image"),
    "a pointer of Git LFS": (content(LFS), "cannot be read as an image"),
    "zeros": (content(bytes(3000)), "cannot be read as an image"),
    "half a PNG": (content(half(encoded(random_image(1), "PNG"))), "cannot be read as an image"),
    "a PNG with a wrong bit": (content(flipped(encoded(random_image(1), "PNG"))), "cannot be read as an image"),
    "half a JPEG": (content(half(encoded(random_image(1, side=40), "JPEG"))), "cannot be read as an image"),
    "half a GIF": (content(half(encoded(random_image(1, side=40), "GIF"))), "cannot be read as an image"),
    "half a WebP": (content(half(encoded(random_image(1, side=40), "WEBP"))), "cannot be read as an image"),
    "half a TIFF": (content(half(encoded(random_image(1, side=40), "TIFF"))), "cannot be read as an image"),
    "half a BMP": (content(half(encoded(random_image(1, side=40), "BMP"))), "cannot be read as an image"),
    "a PNG of 4 thousand million pixels": (content(png(65535, 65535)), "cannot be read as an image"),
    "a PNG without a pixel": (content(png(0, 5)), "cannot be read as an image"),
    "a PNG with too few pixels": (content(png(40, 40)), "cannot be read as an image"),
    "a profile of 2 MB": (
        content(encoded(random_image(1), "PNG", icc_profile=bytes(2_000_000))),
        "cannot be read as an image",
    ),
    "an archive": (content(zipped("a.png", encoded(random_image(1), "PNG"))), "cannot be read as an image"),
    "a drawing": (content(b'<svg xmlns="http://www.w3.org/2000/svg"><circle r="4"/></svg>'), "cannot be read"),
    "PostScript": (
        content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"),
        "cannot be read as an image",
    ),
    "a NaN": (
        content(encoded(Image.fromarray(np.where(FLOAT_IMAGE > 0.9, np.nan, FLOAT_IMAGE)), "TIFF")),
        "NaN or infinite|more than 8 bits",
    ),
    "an array of numpy": (content(saved(np.save, FLOAT_IMAGE)), "cannot be read as an image"),
}

WAVE = recorded(sound())
SOUNDS: dict[str, tuple[Damage, str]] = EVERY_FILE | {
    "a web page": (content(HTML), "cannot be read as sound"),
    "a pointer of Git LFS": (content(LFS), "cannot be read as sound"),
    "zeros": (content(bytes(3000)), "cannot be read as sound"),
    "half a WAV": (changed(half), "ends before"),
    "half a WAV of floats": (content(half(recorded(sound(), kind="FLOAT"))), "ends before"),
    "half an AIFF": (content(half(recorded(sound(), "AIFF"))), "ends before"),
    "half an AU": (content(half(recorded(sound(), "AU"))), "ends before"),
    "half a FLAC": (content(half(recorded(sound(frames=9000), "FLAC"))), "cannot be read as sound"),
    "half an Ogg": (content(half(recorded(sound(frames=9000), "OGG"))), "no sound"),
    "half an MP3": (content(half(recorded(sound(frames=9000), "MP3"))), "cannot be read|NaN|ends before"),
    "a FLAC with a wrong bit": (content(flipped(recorded(sound(frames=9000), "FLAC"))), "cannot be read as sound"),
    "a header alone": (content(WAVE[:44]), "no sound|ends before"),
    "no samples": (content(recorded(sound(frames=0))), "no sound"),
    "no samples a second": (content(wave_header(WAVE, 24, "<I", 0)), "0 samples a second|cannot be read as sound"),
    "2 thousand million samples a second": (content(wave_header(WAVE, 24, "<I", 1_999_999_999)), "samples a second"),
    "no channels": (content(wave_header(WAVE, 22, "<H", 0)), "cannot be read as sound|no sound"),
    "no known coding": (content(wave_header(WAVE, 20, "<H", 0x7777)), "cannot be read as sound"),
    "a NaN": (content(recorded(np.where(sound() > 0.2, np.nan, sound()), kind="FLOAT")), "NaN or infinite"),
    "infinite": (content(recorded(np.where(sound() > 0.2, np.inf, sound()), kind="FLOAT")), "NaN or infinite"),
    "an image": (content(encoded(random_image(1), "PNG")), "cannot be read as sound"),
    "an archive": (content(zipped("a.wav", WAVE)), "cannot be read as sound"),
}
