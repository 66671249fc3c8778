"""Drawn blood smears: the same by seed, with boxes around what is drawn."""

import numpy as np
import pytest
import torch

from graft.data.boxes import Boxes
from graft.data.sources import rendered_cells
from graft.data.sources.rendered_cells import RenderedCells, picture, random_of, smear


def loaded(split=0, **settings):
    return RenderedCells(**{"samples": 8, "height": 96, "width": 128, **settings}).load(split)


def test_splits_are_drawn_at_first_use_and_differ():
    data = loaded()
    assert [len(split) for split in (data.train, data.val, data.test)] == [8, 10, 10]
    assert data.classes == ("Platelets", "RBC", "WBC"), "as Pascal VOC's layout sorts those of BCCD"
    assert data.train.inputs._tensor is None
    images = data.train.inputs.tensor
    assert images.shape == (8, 3, 96, 128)
    assert images.dtype == torch.uint8
    assert not torch.equal(images, data.val.inputs.tensor[:8])
    assert isinstance(data.train.labels, Boxes)
    assert data.train.labels.sizes.tolist() == [[96, 128]] * 8


def test_the_seed_decides_pictures_and_boxes_and_the_split_seed_does_not():
    one, same, other = loaded(), loaded(split=1), loaded(seed=1)
    assert torch.equal(one.train.inputs.tensor, same.train.inputs.tensor)
    assert one.train.labels.digest == same.train.labels.digest
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert not torch.equal(one.train.inputs.tensor, other.train.inputs.tensor)
    more = loaded(samples=12)
    assert torch.equal(more.train.inputs.tensor[:8], one.train.inputs.tensor), "more leave the first as they are"


def test_every_picture_has_a_white_cell_and_several_red_ones_inside_of_it():
    labels = loaded(samples=40).train.labels
    counts = labels.counts(3)
    assert (counts[:, 2] == 1).all()
    assert (counts[:, 1] >= 4).all()
    assert 0 < counts[:, 0].float().mean() < 3
    for boxes in labels.boxes:
        assert (boxes[:, :2] < boxes[:, 2:]).all()
        assert boxes.min() >= 0
        assert (boxes.amax(0) <= torch.tensor([128, 96, 128, 96])).all()


def test_boxes_are_as_tight_as_what_is_drawn(monkeypatch):
    monkeypatch.setattr(rendered_cells, "NOISE", 0)
    for index in range(6):
        cells = smear(4 / 3, random_of(index))
        for name, least in (("RBC", 4), ("WBC", 4), ("Platelets", 3)):
            for one in [cell for cell in cells if cell.name == name][:2]:
                shown, without = (picture(some, (192, 256), random_of("same")).astype(int) for some in ([one], []))
                rows, columns = (np.abs(shown - without).max(2) > least).nonzero()
                found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                expected = (one.outline.box * 192).clip(0, [256, 192, 256, 192])
                assert np.abs(found - expected).max() < 6, name


def test_a_seed_keeps_its_meaning():
    labels = loaded().train.labels
    assert labels.counts(3).tolist() == [
        *([1, 6, 1], [3, 16, 1], [3, 9, 1], [2, 14, 1], [3, 10, 1], [2, 6, 1], [3, 17, 1], [1, 17, 1])
    ]
    assert [float(boxes.sum()) for boxes in labels.boxes[:2]] == pytest.approx([2049.943, 4712.371], abs=0.1)


def test_chosen_classes_in_their_order():
    every, some = loaded().train.labels, loaded(classes=["WBC", "RBC"])
    assert some.classes == ("WBC", "RBC")
    assert torch.equal(some.train.labels.counts(2), every.counts(3)[:, [2, 1]])
    assert torch.equal(some.train.inputs.tensor, loaded().train.inputs.tensor), "the others are drawn all the same"
