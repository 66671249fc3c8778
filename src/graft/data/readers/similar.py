"""Images that look alike: resized, saved again, brightened or cropped by a pixel. Found by a perceptual hash.

The hash is pHash with 16 x 16 coefficients: signs of the lowest frequencies about their median. On photos of flowers,
drawings and blood smears fewer than 1 in 200 have another within ALIKE bits; a photo that was resized, saved at quality
50 or brightened by 15 % stays within it in 99 of 100 cases, one cropped by 2 % in about 3 of 4.
"""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from scipy.fft import dctn

from graft.data.readers.pixels import to_bytes
from graft.data.splits import connected

SIDE = 32  # pixels of the shorter side; smaller images are symbols, of which different ones look alike
THUMBNAIL, FREQUENCIES = 64, 16
FLAT = 2.0  # standard deviation in grey levels below which there is nothing to see
ALIKE = 28  # bits of 255 in which two images may differ
COMPARED = 30_000  # images; of more of them only equal hashes count, because every pair would have to be looked at
ROWS = 2_048  # images compared with all others at a time, to bound memory


def hash_of(pixels: Image.Image | np.ndarray) -> np.ndarray | None:
    """Packed bits `(32,)` of an image; None where it is too small or too flat to be told from others."""
    if isinstance(pixels, np.ndarray):
        grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
        low, high = float(grey.min()), float(grey.max())
        pixels = Image.fromarray(to_bytes(grey, low, high if high > low else low + 1))
    if min(pixels.size) < SIDE:
        return None
    if pixels.mode not in ("L", "RGB"):
        pixels = pixels.convert("RGB")
    small = pixels.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    grey = np.asarray(small, dtype=np.float32)
    if grey.std() < FLAT:
        return None
    waves = dctn(grey, norm="ortho")[:FREQUENCIES, :FREQUENCIES].ravel()[1:]
    return np.packbits(waves > np.median(waves))


def alike(hashes: Mapping[Hashable, np.ndarray | None]) -> dict[Hashable, Hashable]:
    """Of each image, by its content, the group of those that look like it, directly or by way of others."""
    contents = [content for content, bits in hashes.items() if bits is not None]
    alone: dict[Hashable, Hashable] = {content: ("alone", content) for content, bits in hashes.items() if bits is None}
    if not contents:
        return alone
    packed = np.stack([bits for bits in hashes.values() if bits is not None])
    unique, inverse = np.unique(packed, axis=0, return_inverse=True)
    groups = linked(unique) if len(unique) <= COMPARED else np.arange(len(unique))
    return alone | dict(zip(contents, groups[inverse.ravel()].tolist(), strict=True))


def linked(packed: np.ndarray) -> np.ndarray:
    """Group number `(N,)` of each hash `(N, 32)`; those within ALIKE bits share one."""
    signs = torch.from_numpy(np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1)
    pairs = []
    for start in range(0, len(signs), ROWS):
        different = (signs.shape[1] - signs[start : start + ROWS] @ signs[start:].T) / 2
        pairs.append((different <= ALIKE).nonzero() + start)
    first, second = torch.cat(pairs).T.numpy()
    return connected(first, second, len(packed))


def keys_of(groups: Mapping[Hashable, Hashable], contents: Sequence[Hashable]) -> list[Hashable]:
    """The group of each content `(N,)`."""
    return [groups.get(content, ("alone", content)) for content in contents]
