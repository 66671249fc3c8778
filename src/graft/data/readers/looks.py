"""What a look into each image found, kept in the cache by the image's content: a second run opens none of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from graft.cache.disk import DiskCache, NoRoom
from graft.cache.key import cache_key, code_used, sha256
from graft.data.readers.images import THREADS, TOGETHER, Look
from graft.data.readers.similar import SIDE, hashes_of, thumbnail_of
from graft.data.threads import in_parts

FILE = "looks.json"
MANY = 10_000  # images; checking fewer takes no time worth a line
LOOK_BYTES = 256  # of a look in the file, at most
KEPT = ("problem", "limit", "low", "high", "pages", "bands")  # of a look, beside its hash


def looks_of(
    digests: Sequence[bytes],
    look: Callable[[int], Look],
    cache: DiskCache | None,
    depends_on: Mapping[str, Any],
    parts: Sequence[Any] = (),
) -> list[Look]:
    """The look into each image `(N,)`, by the digests of their content; `look` takes an index.

    Looks depend on the content, on `depends_on`, and on the code that this module and `parts` use. What cannot be used
    is not kept: the reason, such as memory or a missing library, may be gone the next time.
    """
    found: dict[bytes, Look] = {}
    if cache is not None and any(digests):
        content = sha256(b"".join(sorted(set(digests))))
        key = cache_key({"looks": content, "code": code_used(__name__, *parts), **depends_on})

        def make(folder: Path) -> None:
            found.update({one.digest: one for one in look_at(range(len(digests)), look) if one.digest})
            write({digest: one for digest, one in found.items() if not one.problem}, folder)

        with suppress(NoRoom):
            found = cache.get(key, lambda: LOOK_BYTES * len(digests), make, read) | found
    missing = [index for index, digest in enumerate(digests) if digest not in found]
    looks = dict(zip(missing, look_at(missing, look), strict=True))
    return [looks[index] if index in looks else found[digest] for index, digest in enumerate(digests)]


def looks_of_arrays(images: np.ndarray, digests: Sequence[bytes], cache: DiskCache | None) -> list[Look]:
    """The look into each image uint8 `(N, C, H, W)`; in small ones there is nothing to find."""
    if min(images.shape[2:]) < SIDE:
        return [Look(digest) for digest in digests]
    looks = lambda index: Look(digests[index], thumbnail=thumbnail_of(images[index].transpose(1, 2, 0)))  # noqa: E731
    return looks_of(digests, looks, cache, {})


def look_at(indices: Sequence[int], look: Callable[[int], Look]) -> list[Look]:
    """A look into each of some images, several at a time."""
    if len(indices) >= MANY:
        print(f"Checking {len(indices):,} images", flush=True)

    def look_at_some(some: Sequence[int]) -> list[Look]:
        looks = [look(index) for index in some]
        seen = [(one, one.thumbnail) for one in looks if one.thumbnail is not None]
        if seen:
            for (one, _), bits in zip(seen, hashes_of([thumbnail for _, thumbnail in seen]), strict=True):
                one.hash = bits
        for one in looks:
            one.thumbnail = one.image = None
        return looks

    with ThreadPoolExecutor(THREADS) as pool:
        return in_parts(pool, look_at_some, indices, TOGETHER)


def write(looks: Mapping[bytes, Look], folder: Path) -> None:
    """Write looks by the digests of their images."""
    rows = {
        digest.hex(): {name: getattr(one, name) for name in KEPT}
        | {"hash": None if one.hash is None else one.hash.tobytes().hex()}
        for digest, one in looks.items()
    }
    (folder / FILE).write_text(json.dumps(rows))


def read(folder: Path) -> dict[bytes, Look]:
    """What was written."""
    looks = {}
    for name, row in json.loads((folder / FILE).read_text()).items():
        digest, bits = bytes.fromhex(name), row["hash"]
        bits = None if bits is None else np.frombuffer(bytes.fromhex(bits), dtype=np.uint8)
        looks[digest] = Look(**{**row, "digest": digest, "hash": bits})
    return looks
