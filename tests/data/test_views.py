"""Further views of a training batch: drawn from its key, and refused where there is no augmentation."""

import pytest
import torch

from graft.data.module import TransferDataModule
from graft.data.views import augment_of_view
from graft.errors import GraftError

from .conftest import Numbers


def first_batch(spec, views, augment="none"):
    data = TransferDataModule(Numbers(20), batch_size=6, augment=augment)
    data.load()
    data.views = {"target": views}
    data.set_input(spec)
    return next(iter(data.train_dataloader()["target"]))


@pytest.mark.parametrize("augment", ["none", "light"])
def test_views_are_of_the_same_samples_and_change_nothing_else(spec, augment):
    plain, batch = first_batch(spec, (), augment), first_batch(spec, ("weak", "strong"), augment)
    assert torch.equal(batch.inputs, plain.inputs)
    assert torch.equal(batch.indices, plain.indices)
    assert plain.views == {}
    weak, strong = batch.views["weak"], batch.views["strong"]
    assert weak.shape == strong.shape == batch.inputs.shape
    assert not any(torch.equal(a, b) for a, b in ((weak, batch.inputs), (strong, batch.inputs), (weak, strong)))
    alone = first_batch(spec, ("strong",), augment).views
    assert torch.equal(alone["strong"], strong)  # whatever else is drawn


def test_weak_is_the_runs_own_augmentation_drawn_again_and_strong_the_strongest():
    assert augment_of_view("weak", "image", "crop") == "crop"
    assert augment_of_view("weak", "audio", "none") == "light"
    assert augment_of_view("strong", "image", "none") == "randaugment"
    assert augment_of_view("strong", "audio", "light") == "specaugment"


def test_other_views_and_other_modalities_are_refused():
    with pytest.raises(GraftError, match=r"no weak views of table data.*Leave the term out"):
        augment_of_view("weak", "table", "none")
    with pytest.raises(GraftError, match="Allowed: weak, strong"):
        augment_of_view("wild", "image", "none")
