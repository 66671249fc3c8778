"""What samples hold, compared by their hashes."""

import hashlib

import numpy as np
import pytest
import torch

from graft.data.samples import Digests, Samples, group_numbers, number_in, sha256, take


def hashes(contents):
    return [hashlib.sha256(str(one).encode()).digest() for one in contents]


def as_digests(found):
    return Digests(np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, 32))


@pytest.mark.parametrize("contents", [range(9000), [3, 1, 3, 2, 1, 3], [5]])
def test_hashes_in_one_array_are_the_same_as_one_by_one(contents):
    found = hashes(contents)
    digests = as_digests(found)
    assert list(digests) == found
    assert sha256([b"before", digests]) == sha256([b"before", *found])
    assert group_numbers(digests).tolist() == group_numbers(found).tolist()


def test_some_of_some_of_them():
    found = hashes(range(10))
    some = as_digests(found)[np.array([7, 2, 2, 5])]
    assert list(some) == [found[7], found[2], found[2], found[5]]
    assert list(some[np.array([3, 0])]) == [found[5], found[7]]
    assert group_numbers(some).tolist() == [0, 1, 1, 2]
    assert sha256([some]) == sha256([*some])


def test_how_many_are_among_others():
    others = hashes(range(9000))
    contents = hashes([*range(8990, 9005), 17, 17])
    assert number_in(as_digests(contents), as_digests(others)) == number_in(contents, others) == 12
    assert number_in(as_digests(hashes(["x"])), as_digests(others)) == 0
    assert number_in(as_digests(contents)[np.array([], dtype=np.int64)], as_digests(others)) == 0


def test_hashes_that_begin_alike_are_not_the_same():
    found = [b"a" * 8 + bytes([end]) * 24 for end in (1, 2, 1)]
    assert group_numbers(as_digests(found)).tolist() == [0, 1, 0]
    assert number_in(as_digests(found[:1]), as_digests(found[1:2])) == 0
    assert number_in(as_digests(found[:1]), as_digests(found)) == 1


def test_what_is_taken_keeps_its_hashes():
    samples = Samples(torch.arange(4), ["a", "b", "a", "b"], ["w", "x", "y", "z"], as_digests(hashes("wxyz")))
    taken = samples.take(torch.tensor([2, 0]))
    assert list(taken.contents) == hashes("yw")
    assert (taken.labels, taken.places) == (["a", "a"], ["y", "w"])


def test_a_part_of_samples_gives_plain_indices():
    part = take(["a", "b", "c"], torch.tensor([2, 0]))
    assert [type(index) for index in part.indices] == [int, int]
    assert [*part] == ["c", "a"]
