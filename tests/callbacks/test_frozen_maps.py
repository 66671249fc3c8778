"""Heads on a frozen backbone's maps, which are computed once: the same as without, whatever sizes the images have."""

import copy

import pytest
import pytorch_lightning as pl
import torch
import toy

from graft.backbones import maps as maps_module
from graft.backbones.maps import MapsSplit, maps_of
from graft.backbones.outputs import Maps
from graft.backbones.timm import TimmBackbone
from graft.cache.disk import DiskCache
from graft.cache.features import FeatureCache
from graft.callbacks.frozen_features import FrozenFeatures
from graft.data.module import TransferDataModule
from graft.data.sources.voc import VOC
from graft.heads.base import context_for, new_head
from graft.module import TransferModule
from graft.objectives.alpha import AlphaWeighted
from graft.rates.uniform import Uniform
from graft.strategies.frozen import Frozen
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.tasks.detection import Detection
from graft.training.schedules import Constant
from tests.boxes_on_disk import SIZE, write_voc

HEAD = {"_target_": "graft.heads.fcos.FCOSHead", "width": 32, "strides": [8, 16]}
SIZES = (SIZE, (64, 48), (40, 90))  # height and width; padded to two different sizes and more
TRAIN, VAL, TEST = 8, 4, 5


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("boxes") / "voc", TRAIN, VAL, TEST, SIZES)


class Steps(pl.Callback):
    """The loss of every step, validation losses, and images that the backbone saw."""

    def __init__(self, backbone):
        self.losses, self.images, self.stored = [], 0, []
        self.hook = backbone.network.conv_stem.register_forward_hook(lambda _m, x, _y: self.note(x[0]))

    def note(self, images):
        self.images += len(images)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"].detach()))
        self.stored.append(batch["target"].stored)

    def on_validation_end(self, trainer, pl_module):
        self.losses.append(float(trainer.callback_metrics["val/target/loss"]))


def parts(root, strategy, alpha=0.0, augment="none"):
    torch.manual_seed(0)
    backbone = TimmBackbone("test_efficientnet", 48, 3)
    data = TransferDataModule(
        target=VOC(str(root)),
        source=VOC(str(root)) if alpha else None,
        **{"batch_size": 4, "eval_batch_size": 3, "image_size": 48, "augment": augment},
    )
    data.load()
    data.set_input(backbone.input_spec)
    objective = AlphaWeighted(alpha)
    data.train_domains = objective.domains()
    head = new_head(HEAD, context_for(HEAD, backbone, 2, ("blue", "red")))
    domains = ("target", "source") if alpha else ("target",)
    module = TransferModule(
        backbone,
        {"shared" if alpha else "target": head},
        {domain: Detection() for domain in domains},
        dict.fromkeys(domains, 2),
        objective,
        strategy,
        Uniform(),
        Constant(),
        toy.optimizer(lr=0.01),
    )
    return module, data


def fitted(root, cache, epochs=3, **settings):
    module, data = parts(root, **copy.deepcopy(settings))
    steps = Steps(module.backbone)
    callbacks = [steps] if cache is None else [FrozenFeatures(cache), steps]
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=epochs, use_distributed_sampler=False)
    trainer.fit(module, data)
    return module, steps, trainer, data


@pytest.mark.parametrize("alpha", [0.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_kept_maps_change_nothing_but_the_work(tmp_path, root, alpha):
    kept = FeatureCache(DiskCache(tmp_path, 2**30))
    module, steps, trainer, data = fitted(root, kept, strategy=Frozen(), alpha=alpha)
    plain, expected, other, same_data = fitted(root, None, strategy=Frozen(), alpha=alpha)
    assert all(isinstance(one, Maps) for one in steps.stored)
    torch.testing.assert_close(torch.tensor(steps.losses), torch.tensor(expected.losses), rtol=1e-6, atol=1e-6)
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-5, atol=1e-6, msg=name)
    assert steps.images < 0.6 * expected.images
    trainer.test(module, data, verbose=False)
    other.test(plain, same_data, verbose=False)
    for name, value in other.callback_metrics.items():
        torch.testing.assert_close(trainer.callback_metrics[name], value, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert [entry.split for entry in kept.report if entry.domain == "target"] == ["train", "val", "test"]


def test_a_second_run_computes_no_map(tmp_path, root):
    for computed in (True, False):
        kept = FeatureCache(DiskCache(tmp_path, 2**30))
        _, steps, *_ = fitted(root, kept, epochs=1, strategy=Frozen())
        assert [entry.computed for entry in kept.report] == [computed] * 2
        assert steps.images == computed * (TRAIN + VAL) + 1  # an example, whose size is asked for
    assert all(entry.bytes < 1.3 * size_of(tmp_path, entry, kept) for entry in kept.report)


def size_of(folder, entry, kept):
    sizes = sorted(file.stat().st_size for file in folder.glob("*/maps.bin"))
    return sizes[-1] if entry.split == "train" else sizes[0]


def test_without_room_every_epoch_computes_them_and_says_so(tmp_path, root, capsys):
    kept = FeatureCache(DiskCache(tmp_path, 1000))
    _, steps, *_ = fitted(root, kept, epochs=1, strategy=Frozen())
    assert kept.report == []
    assert "GiB are more than cache.limit_gb" in kept.refused
    assert "of target train is computed in every epoch" in capsys.readouterr().out
    assert steps.stored == [None] * 2


@pytest.mark.slow
def test_augmented_images_are_not_kept_and_the_first_phase_alone_is(tmp_path, root):
    kept = FeatureCache(DiskCache(tmp_path, 2**30))
    _, steps, *_ = fitted(root, kept, epochs=1, strategy=Frozen(), augment="light")
    assert [entry.split for entry in kept.report] == ["val"]
    _, steps, *_ = fitted(root, kept, epochs=2, strategy=LinearProbeThenFineTune())
    assert [one is not None for one in steps.stored] == [True] * 2 + [False] * 2


def test_a_frozen_network_sees_each_image_at_its_own_size(monkeypatch):
    torch.manual_seed(0)
    backbone = TimmBackbone("test_efficientnet", 48, 3).eval()
    images, sizes = torch.zeros(3, 3, 64, 96), torch.tensor([[48, 90], [64, 40], [60, 96]])
    for image, (height, width) in zip(images, sizes.tolist(), strict=True):
        image[:, :height, :width] = torch.randn(3, height, width)
    with torch.no_grad():
        found = maps_of(backbone, images, sizes)
        for place, (height, width) in enumerate([(64, 96), (64, 64), (64, 96)]):
            alone = maps_of(backbone, images[place : place + 1, :, :height, :width])
            for stage, one in alone.values.items():
                rows, columns = one.shape[-2:]
                torch.testing.assert_close(found.values[stage][place : place + 1, :, :rows, :columns], one)
                assert not found.values[stage][place, :, :, columns:].any()
            torch.testing.assert_close(found.features[place : place + 1], alone.features)
        assert found.sizes.tolist() == sizes.tolist()
        monkeypatch.setattr(maps_module, "maps_by_size", None)
        assert maps_of(backbone.train(), images, sizes).size == (64, 96), "one batch for BatchNorm"


def test_a_cut_holds_the_stages_that_heads_read():
    backbone = TimmBackbone("test_efficientnet", 48, 3).eval()
    head = new_head(HEAD, context_for(HEAD, backbone, 2, ("blue", "red")))
    cut = MapsSplit(backbone, head.stages)
    maps = cut.trunk((torch.randn(1, 3, 48, 48), torch.tensor([[48, 48]])))
    assert [*maps.values] == head.stages
    numbers = sum(one.numel() for one in maps.values.values()) + maps.features.numel()
    assert cut.shape == (numbers,)
