import torch

from graft.inputs.base import Fields, join


def test_tensors_are_joined_one_after_the_other():
    first, second = torch.zeros(2, 3), torch.ones(1, 3)
    assert torch.equal(join([first, second]), torch.cat([first, second]))


def test_sequences_of_different_lengths_are_filled_up_with_zeros():
    first = Fields({"tokens": torch.ones(2, 3), "maps": torch.ones(2, 3, 4), "length": torch.tensor([3, 3])})
    second = Fields({"tokens": torch.ones(1, 5), "maps": torch.ones(1, 5, 4), "length": torch.tensor([5])})
    joined = join([first, second])
    assert len(joined) == 3
    assert joined["tokens"].sum(1).tolist() == [3, 3, 5]
    assert joined["maps"].shape == (3, 5, 4)
    assert joined["maps"].sum((1, 2)).tolist() == [12, 12, 20]
    assert joined["length"].tolist() == [3, 3, 5]


def test_fields_move_like_a_tensor():
    fields = Fields({"tokens": torch.ones(2, 3), "mask": torch.ones(2, 3)}).to("meta")
    assert {tensor.device.type for tensor in fields.tensors.values()} == {"meta"}
