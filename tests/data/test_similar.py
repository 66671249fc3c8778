import numpy as np
import pytest
import torch

from graft.data.readers.similar import ALIKE, BANDS, WIDTH, alike, hashes_of, linked
from graft.data.splits import connected


def hashes(number, planted, differing, seed=0):
    """Random hashes `(number + planted, 32)`, the last of which differ from the first in as many bits as asked for."""
    random = np.random.default_rng(seed)
    bits = random.integers(0, 2, (number, BANDS * WIDTH), dtype=np.uint8)
    copies = bits[:planted].copy()
    for row, different in zip(copies, np.resize(differing, planted), strict=True):
        row[random.choice(len(row), different, replace=False)] ^= 1
    return np.packbits(np.concatenate([bits, copies]), axis=1)


def by_looking_at_every_pair(packed):
    signs = torch.from_numpy(np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1)
    different = (signs.shape[1] - signs @ signs.T) / 2
    first, second = (different <= ALIKE).nonzero().T.numpy()
    return connected(first, second, len(packed))


def partition(groups):
    members = {}
    for index, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(index)
    return sorted(members.values())


@pytest.mark.parametrize("seed", range(3))
def test_bands_find_what_looking_at_every_pair_finds(seed):
    packed = hashes(1500, 600, [0, 1, 14, 27, 28, 29, 30, 40], seed)
    assert partition(linked(packed)) == partition(by_looking_at_every_pair(packed))


def test_the_radius_is_exact_however_the_bits_are_spread():
    """28 bits that leave no band equal: one in each of two bands, two in each of the others; one bit more is apart."""
    bits = np.random.default_rng(0).integers(0, 2, BANDS * WIDTH, dtype=np.uint8)
    places = [band + step * BANDS for band in range(BANDS) for step in ((3,) if band < 2 else (0, 9))]
    assert len(places) == ALIKE
    for places_changed, groups in ((places, 1), ([*places, 2 + 5 * BANDS], 2)):
        changed = bits.copy()
        changed[places_changed] ^= 1
        assert len(set(linked(np.packbits([bits, changed], axis=1)).tolist())) == groups


def test_images_of_one_hash_and_a_chain_of_likenesses_are_one_group():
    bits = np.zeros((4, BANDS * WIDTH), dtype=np.uint8)
    bits[2, :ALIKE] = 1
    bits[3, : 2 * ALIKE] = 1
    packed = np.packbits(bits, axis=1)
    groups = alike({"a": packed[0], "b": packed[1], "c": packed[2], "d": packed[3], "flat": None})
    assert len({groups[name] for name in "abcd"}) == 1
    assert groups["flat"] not in {groups[name] for name in "abcd"}


@pytest.mark.slow
def test_a_hundred_thousand_are_compared_in_seconds():
    groups = linked(np.unique(hashes(80_000, 20_000, [28]), axis=0))
    assert len(np.unique(groups)) == 80_000


def test_a_hash_does_not_depend_on_the_images_beside_it():
    random = np.random.default_rng(0)
    thumbnails = [random.integers(0, 256, (64, 64), dtype=np.uint8) for _ in range(40)]
    thumbnails[7][:] = 9  # nothing to see
    together = hashes_of(thumbnails)
    assert together[7] is None
    for one, thumbnail in zip(together, thumbnails, strict=True):
        (alone,) = hashes_of([thumbnail])
        assert (one is None and alone is None) or one.tolist() == alone.tolist()
