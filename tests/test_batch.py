from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from graft.backbones.lenet import lenet
from graft.backbones.timm import TimmBackbone
from graft.backbones.torchvision import TorchvisionBackbone
from graft.errors import GraftError
from graft.inputs.base import DomainBatch
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from graft.tasks.multilabel import Multilabel
from graft.tasks.regression import Regression
from graft.training.batch_transforms import Mixing, ProgressiveResizing, build_batch_transforms

DEFAULTS = OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[1] / "conf" / "training" / "default.yaml"))


def images(size=6, side=8, seed=0, dtype=torch.float32):
    return torch.rand(size, 3, side, side, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def transformed(transform, inputs, labels, epoch=0):
    """Inputs and labels that a batch transform makes of the target's."""
    batch = transform({"target": DomainBatch(inputs, labels)}, epoch)["target"]
    return batch.inputs, batch.labels


def own_pixels(mixed, inputs):
    """Which pixels `(B, H, W)` of a mixed batch are the image's own; the others must be those of the image before."""
    own = (mixed == inputs).all(dim=1)
    before = (mixed == inputs.roll(1, 0)).all(dim=1)
    assert (own | before).all()
    return own


# MixUp and CutMix


def test_mixup_is_the_weighted_sum_of_neighbours_and_of_their_labels():
    inputs, labels = images(), torch.tensor([0, 1, 2, 2, 1, 0])
    torch.manual_seed(5)
    mixed, soft = transformed(Mixing({"target": 3}, mixup_alpha=0.4), inputs, labels)

    shares = soft[torch.arange(6), labels]  # the neighbour has another class where this is the weight itself
    weight = shares[(labels != labels.roll(1))].unique()
    assert weight.numel() == 1
    assert 0 < weight.item() < 1
    torch.testing.assert_close(mixed, weight * inputs + (1 - weight) * inputs.roll(1, 0))
    one_hot = F.one_hot(labels, 3)
    torch.testing.assert_close(soft, weight * one_hot + (1 - weight) * one_hot.roll(1, 0))


def test_mixup_weights_follow_the_beta_distribution():
    torch.manual_seed(0)
    mixing, batch = Mixing({"target": 2}, mixup_alpha=0.3), (images(2), torch.tensor([0, 1]))
    weights = torch.stack([transformed(mixing, *batch)[1][0, 0] for _ in range(2000)])
    assert weights.mean().item() == pytest.approx(0.5, abs=0.03)
    assert weights.var().item() == pytest.approx(1 / (4 * (2 * 0.3 + 1)), abs=0.01)  # of Beta(a, a)


def test_cutmix_pastes_one_box_of_the_image_before_and_labels_are_shares_of_the_area():
    mixing, inputs, labels = Mixing({"target": 6}, cutmix_alpha=1.0), images(), torch.arange(6)
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, soft = transformed(mixing, inputs, labels)
        own = own_pixels(mixed, inputs)
        assert all(torch.equal(mask, own[0]) for mask in own)
        rows, columns = (~own[0]).any(1).nonzero(), (~own[0]).any(0).nonzero()
        if len(rows):
            assert not own[0][rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].any()
        share = own[0].float().mean()
        expected = share * torch.eye(6) + (1 - share) * torch.eye(6).roll(1, 0)
        torch.testing.assert_close(soft, expected)


def test_with_both_each_step_draws_one_of_the_two_for_all_domains():
    mixing = Mixing({"source": 6, "target": 6}, mixup_alpha=1.0, cutmix_alpha=1.0)
    domains = ("source", "target")
    batch = {domain: DomainBatch(images(seed=seed), torch.arange(6)) for seed, domain in enumerate(domains)}
    seen = []
    for seed in range(40):
        torch.manual_seed(seed)
        mixed = mixing(batch, epoch=0)
        cut = {(mixed[domain].inputs == batch[domain].inputs).any().item() for domain in batch}
        assert len(cut) == 1
        seen += cut
    assert 10 <= sum(seen) <= 30


def test_domains_are_mixed_apart_with_their_own_classes_and_one_without_labels_is_left_alone():
    mixing = Mixing({"source": 4, "target": 2}, mixup_alpha=1.0)
    batch = {"source": DomainBatch(images(), torch.arange(6) % 4), "target": DomainBatch(images(seed=1))}
    mixed = mixing(batch, epoch=0)
    assert mixed["target"] is not None
    assert mixed["target"].inputs is batch["target"].inputs
    assert mixed["target"].labels is None
    assert mixed["source"].labels.shape == (6, 4)
    assert not torch.equal(mixed["source"].inputs, batch["source"].inputs)
    assert torch.equal(batch["source"].inputs, images())  # the batch itself stays


def test_several_labels_at_once_are_mixed_one_by_one():
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0]])
    torch.manual_seed(0)
    inputs = images(3)
    mixed, soft = transformed(Mixing({"target": 3}, mixup_alpha=1.0), inputs, labels)
    weight = soft[1, 0] if soft[1, 0] > 0 else None  # 0 of its own, 1 of the one before: the weight of the latter
    torch.testing.assert_close(soft, (1 - weight) * labels + weight * labels.roll(1, 0))
    torch.testing.assert_close(mixed, (1 - weight) * inputs + weight * inputs.roll(1, 0))


# Progressive resizing


def test_sides_grow_linearly_between_two_fractions_of_the_epochs_in_multiples_of_four():
    resizing = ProgressiveResizing(10, initial_scale=0.5, growth_begins=0.3, full_size_at=0.7)
    sides = [resizing.size((64, 48), epoch) for epoch in range(10)]
    assert sides[:4] == [(32, 24)] * 4
    assert sides[4:7] == [(40, 32), (48, 36), (56, 40)]  # of 40 x 30, 48 x 36 and 56 x 42, halves to even
    assert sides[7:] == [(64, 48)] * 3


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_the_last_epoch_is_at_full_size_however_few_there_are(epochs):
    resizing = ProgressiveResizing(epochs, initial_scale=0.25, growth_begins=0.9, full_size_at=1.0)
    assert resizing.size((33, 33), epochs - 1) == (33, 33)
    assert all(resizing.size((33, 33), epoch) == (8, 8) for epoch in range(epochs - 1))


def test_images_are_averaged_over_pixels_that_become_one_and_full_ones_are_not_touched():
    resizing, inputs = ProgressiveResizing(4, initial_scale=0.5), images(side=16)
    labels = torch.arange(6)
    small = resizing({"source": DomainBatch(inputs, labels), "target": DomainBatch(inputs)}, epoch=0)
    expected = F.interpolate(inputs, (8, 8), mode="bilinear", antialias=True)
    assert not torch.allclose(expected, F.interpolate(inputs, (8, 8), mode="bilinear"))
    torch.testing.assert_close(small["source"].inputs, expected)
    torch.testing.assert_close(small["target"].inputs, expected)
    assert small["source"].labels is labels
    assert transformed(resizing, inputs, labels, epoch=3)[0] is inputs


def test_the_smallest_images_have_four_pixels_and_none_is_larger_than_full_size():
    assert ProgressiveResizing(2, initial_scale=0.01).size((32, 32), 0) == (4, 4)
    assert ProgressiveResizing(2, initial_scale=0.99).size((31, 31), 0) == (31, 31)


# From the config


IMAGES = SimpleNamespace(modality="image")


def build(training, backbone=IMAGES, **tasks):
    tasks = tasks or {"target": Multiclass()}
    return build_batch_transforms(DEFAULTS | training, 10, backbone, tasks, dict.fromkeys(tasks, 3))


def test_the_defaults_leave_a_batch_alone():
    assert build({}) == []


def test_images_are_resized_before_they_are_mixed():
    resizing = DEFAULTS["progressive_resizing"] | {"initial_scale": 0.5}
    backbone = TorchvisionBackbone("resnet18", size=32)
    transforms = build({"progressive_resizing": resizing, "mixup_alpha": 0.2, "cutmix_alpha": 1.0}, backbone)
    assert [type(transform) for transform in transforms] == [ProgressiveResizing, Mixing]
    assert [len(mixers) for mixers in transforms[1].mixers] == [1, 1]


@pytest.mark.parametrize("task", [Binary(), Regression()])
@pytest.mark.parametrize("key", ["mixup_alpha", "cutmix_alpha"])
def test_labels_that_cannot_be_mixed_are_refused(task, key):
    with pytest.raises(GraftError, match=rf"training\.{key}=0\.2.*source's task={task.name}.*multilabel"):
        build({key: 0.2}, target=Multilabel(), source=task)


@pytest.mark.parametrize(
    "backbone", [lambda: lenet(size=32), lambda: TimmBackbone("vit_tiny_patch16_224", size=64)], ids=["lenet", "vit"]
)
def test_a_network_for_one_image_size_is_refused(backbone):
    resizing = DEFAULTS["progressive_resizing"] | {"initial_scale": 0.5}
    with pytest.raises(GraftError, match=r"initial_scale=0\.5: .* cannot take images of (16 x 16|32 x 32) pixels"):
        build({"progressive_resizing": resizing}, backbone())


def test_every_size_to_come_is_tried():
    backbone = TorchvisionBackbone("resnet18", size=32)
    seen = []
    backbone.network.conv1.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))
    ProgressiveResizing(10, 0.5).check_any_size(backbone)
    assert seen == [16, 20, 28, 32]


@pytest.mark.parametrize(
    "training", [{"mixup_alpha": 0.2}, {"cutmix_alpha": 1.0}, {"progressive_resizing": {"initial_scale": 0.5}}]
)
def test_what_changes_images_is_refused_for_other_inputs(training):
    with pytest.raises(GraftError, match="changes images, and tiny takes text inputs"):
        build(training, backbone=SimpleNamespace(modality="text", name="tiny"))
