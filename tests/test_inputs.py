import pytest
import torch

from graft.inputs.base import DomainBatch, Fields, join


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


@pytest.mark.parametrize("move", [lambda batch: batch.to("meta"), DomainBatch.pin_memory], ids=["to", "pin_memory"])
def test_a_batch_moves_with_everything_that_a_step_takes(monkeypatch, move):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.to("meta"))  # pinning needs a GPU
    views = {"weak": torch.ones(2, 3), "tokens": Fields({"ids": torch.ones(2, 4)})}
    batch = DomainBatch(torch.ones(2, 3), torch.tensor([0, 1]), torch.tensor([7, 5]), views)
    moved = move(batch)
    parts = [moved.inputs, moved.labels, *moved.views.values()]
    assert [part.device.type for part in parts] == ["meta"] * 4
    assert list(moved.views) == ["weak", "tokens"]
    assert moved.indices is batch.indices  # only the data module needs them
    assert batch.inputs.device.type == batch.views["weak"].device.type == "cpu"  # the batch itself stays


def test_stored_activations_stand_in_the_place_of_inputs():
    batch = DomainBatch(stored=torch.zeros(3, 2))
    assert len(batch) == 3
    moved = batch.to("meta")
    assert moved.stored.device.type == "meta"
    assert (moved.inputs, moved.labels, moved.indices, moved.views) == (None, None, None, {})


def test_a_batch_counts_its_samples():
    assert len(DomainBatch(torch.zeros(4, 2))) == 4
    assert len(DomainBatch(Fields({"ids": torch.ones(2, 4)}))) == 2
