"""A small part of `make chaos`, and what it compares."""

import os

import pytest
from lanes import slow

from tests.proof import chaos, pairwise
from tests.proof.command import proved

FACTORS = {name: list(values) for name, values in chaos.FACTORS.items()}


def test_the_cells_of_the_design_meet_every_allowed_pair_of_values():
    cells = list(chaos.cells(chaos.CELLS))
    assert len(cells) == chaos.CELLS
    met = set().union(*map(pairwise.pairs_of, cells))
    assert met == pairwise.allowed_pairs(FACTORS, chaos.clash)
    assert not any(chaos.clash(pair) for pair in met)


def test_a_difference_in_one_bit_is_found():
    tensor = chaos.torch.arange(3.0)
    other = tensor.clone()
    other[1] = chaos.torch.nextafter(other[1], chaos.torch.tensor(2.0))
    assert list(chaos.unequal({"a": [tensor]}, {"a": [tensor.clone()]})) == []
    assert list(chaos.unequal({"a": [tensor]}, {"a": [other]})) == [".a[0]: tensors differ"]
    assert list(chaos.unequal({"a": 1}, {"a": 1.0, "b": 2})) == [".a: int, float", ".b: in one only"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("cells", [1, *slow(6)])
def test_runs_that_are_killed_and_resumed_are_the_uninterrupted_ones_bit_for_bit(tmp_path, cells):
    code, printed = proved("chaos", "--cells", cells, "--folder", tmp_path)
    assert code == 0, printed
    assert f"{3 * cells} of {3 * cells} are the uninterrupted run bit for bit" in printed
