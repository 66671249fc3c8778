"""Images that look alike: resized, saved again, brightened or cropped by a pixel. Found by a perceptual hash.

The hash is pHash with 16 x 16 coefficients: signs of the lowest frequencies about their median. On photos of flowers,
drawings and blood smears fewer than 1 in 200 have another within ALIKE bits; a photo that was resized, saved at quality
50 or brightened by 15 % stays within it in 99 of 100 cases, one cropped by 2 % in about 3 of 4.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image
from scipy.fft import dct

from graft.data.readers.pixels import to_bytes
from graft.data.splits import connected

SIDE = 32  # pixels of the shorter side; smaller images are symbols, of which different ones look alike
THUMBNAIL, FREQUENCIES = 64, 16
WAVES = dct(np.eye(THUMBNAIL), norm="ortho", axis=0)[:FREQUENCIES].astype(np.float32)  # (16, 64): the lowest
FLAT = 2.0  # standard deviation in grey levels below which there is nothing to see
ALIKE = 28  # bits of 255 in which two images may differ
BANDS, WIDTH = 15, 17  # the hash's 255 bits in bands; hashes within ALIKE bits differ in one bit or none of some band
PAIRS = 2**20  # compared at a time, to bound memory
ONES = np.unpackbits(np.arange(2**16, dtype=">u2").view(np.uint8).reshape(-1, 2), axis=1).sum(1, dtype=np.uint8)


def thumbnail_of(pixels: Image.Image | np.ndarray) -> np.ndarray | None:
    """Grey levels uint8 `(64, 64)` that an image is compared by; None where it is too small to be told from others."""
    if isinstance(pixels, np.ndarray):
        grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
        low, high = float(grey.min()), float(grey.max())
        pixels = Image.fromarray(to_bytes(grey, low, high if high > low else low + 1))
    if min(pixels.size) < SIDE:
        return None
    if pixels.mode not in ("L", "RGB"):
        pixels = pixels.convert("RGB")
    return np.asarray(in_mode(pixels, "L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS))


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An image in one of Pillow's modes, itself where it is: `convert` would copy it, which takes as long again."""
    return image if image.mode == mode else image.convert(mode)


def hashes_of(thumbnails: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """Packed bits `(32,)` of each thumbnail `(64, 64)`; None where one is too flat to be told from others.

    An image's bits do not depend on those beside it.
    """
    grey = np.stack(thumbnails).astype(np.float32)
    waves = (WAVES @ grey @ WAVES.T).reshape(len(grey), -1)[:, 1:]
    bits = np.packbits(waves > np.median(waves, axis=1, keepdims=True), axis=1)
    return [one if varies else None for one, varies in zip(bits, grey.std(axis=(1, 2)) >= FLAT, strict=True)]


def alike(hashes: Mapping[Hashable, np.ndarray | None]) -> dict[Hashable, Hashable]:
    """Of each image, by its content, the group of those that look like it, directly or by way of others."""
    contents = [content for content, bits in hashes.items() if bits is not None]
    alone: dict[Hashable, Hashable] = {content: ("alone", content) for content, bits in hashes.items() if bits is None}
    if not contents:
        return alone
    packed = np.stack([bits for bits in hashes.values() if bits is not None])
    unique, inverse = np.unique(packed, axis=0, return_inverse=True)
    groups = linked(unique)
    return alone | dict(zip(contents, groups[inverse.ravel()].tolist(), strict=True))


def linked(packed: np.ndarray) -> np.ndarray:
    """Group number `(N,)` of each hash `(N, 32)`; those within ALIKE bits share one, directly or by way of others.

    Only hashes whose bits in a band are equal or differ in one are compared. That finds all pairs: two bits or more in
    each of 15 bands would be 30.
    """
    number = len(packed)
    groups = np.arange(number)
    for band in range(BANDS):
        codes = codes_of(packed, band)
        order = codes.argsort(kind="stable")
        words = packed[order].view(np.uint64)  # (N, 4)
        found = [(groups, number + np.arange(number))]
        for first, second in candidates(codes[order]):
            apart = groups[order[first]] != groups[order[second]]
            first, second = close(words, first[apart], second[apart])
            found.append((number + order[first], number + order[second]))
        edges = np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])
        groups = connected(*edges, 2 * number)[number:]
    return groups


def codes_of(packed: np.ndarray, band: int) -> np.ndarray:
    """The bits of a band as a number `(N,)`; bands are interleaved, because neighbouring frequencies are alike."""
    codes = np.zeros(len(packed), dtype=np.int32)
    for place in range(WIDTH):
        byte, bit = divmod(band + place * BANDS, 8)
        codes |= ((packed[:, byte] >> (7 - bit)) & 1).astype(np.int32) << place
    return codes


def candidates(codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places of all pairs of sorted codes `(N,)` that are equal or differ in one bit, some at a time."""
    sizes = np.bincount(codes, minlength=2**WIDTH)
    ends = sizes.cumsum()
    begins = np.arange(len(codes)) + 1
    yield from pairs(begins, ends[codes] - begins)
    for place in range(WIDTH):
        lower = codes & (1 << place) == 0
        others = codes | (1 << place)
        yield from pairs((ends - sizes)[others], np.where(lower, sizes[others], 0))


def pairs(begins: np.ndarray, counts: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each place with the `counts` `(N,)` places that follow its `begins` `(N,)`, about PAIRS at a time."""
    rows = counts.nonzero()[0]
    totals = counts[rows].cumsum()
    cuts = np.searchsorted(totals, np.arange(PAIRS, totals[-1] if len(totals) else 0, PAIRS))
    for some in np.split(rows, cuts):
        number = counts[some]
        offsets = np.arange(number.sum()) - np.repeat(number.cumsum() - number, number)
        yield np.repeat(some, number), np.repeat(begins[some], number) + offsets


def close(words: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of some pairs whose hashes `(N, 4)` are within ALIKE bits; most are apart after a word or two."""
    different = np.zeros(len(first), dtype=np.uint8)
    for word in range(words.shape[1]):
        bits = words[first, word] ^ words[second, word]
        different += ONES[bits.view(np.uint16).reshape(-1, 4)].sum(1, dtype=np.uint8)
        near = different <= ALIKE
        first, second, different = first[near], second[near], different[near]
    return first, second


def keys_of(groups: Mapping[Hashable, Hashable], contents: Sequence[Hashable]) -> list[Hashable]:
    """The group of each content `(N,)`."""
    return [groups.get(content, ("alone", content)) for content in contents]
