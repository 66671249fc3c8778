"""Which jobs make a stack."""

from graft.stacked.stacks import of_one_length


def test_streams_of_several_lengths_are_cut_into_parts_of_one():
    assert of_one_length(["abcd", "ef"]) == ["ab", "cd", "ef"]
    assert of_one_length(["abc", "de"]) == ["a", "b", "c", "d", "e"]


def test_streams_of_one_length_stay_whole():
    assert of_one_length(["abc", "def"]) == ["abc", "def"]
