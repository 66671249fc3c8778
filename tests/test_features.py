from contextlib import nullcontext

import pytest
import torch

from graft.backbones.split_backbone import active_modules, find_split
from graft.backbones.torchvision import TorchvisionBackbone
from graft.cache import features
from graft.cache.disk import DiskCache
from graft.cache.features import FeatureCache, Wanted
from graft.strategies.base import Strategy, frozen_modules, stage_names


def cut_before(stage):
    torch.manual_seed(0)
    backbone = TorchvisionBackbone("resnet18", size=32).requires_grad_(False).eval()
    names = stage_names(backbone)
    phase = Strategy().phase(1, backbone, names[names.index(stage) :] if stage else ())
    return find_split(backbone, active_modules(backbone, frozen_modules(backbone, phase), phase.parameters))


def ask(cache, cut, images, also=(), **depends_on):
    order = torch.arange(len(images)).flip(0)
    batches = lambda: ((indices, images[indices]) for indices in order.split(4))  # noqa: E731
    return cache.rows(Wanted(cut, depends_on), also, batches, len(images), nullcontext, "target", "train")


@pytest.mark.parametrize("stage", [None, "layer4"])
def test_rows_are_the_activations_in_order(tmp_path, stage):
    cut, images = cut_before(stage), torch.randn(10, 3, 32, 32)
    rows = ask(FeatureCache(DiskCache(tmp_path, 2**30)), cut, images)
    torch.testing.assert_close(rows[torch.tensor([9, 0])], cut.trunk(images[[9, 0]]), rtol=1e-4, atol=1e-5)


def test_what_they_depend_on_decides_whether_they_are_there(tmp_path):
    disk, cut, images = DiskCache(tmp_path, 2**30), cut_before(None), torch.randn(10, 3, 32, 32)
    computed = []
    for weights in ("a", "a", "b", "a"):
        cache = FeatureCache(disk)
        ask(cache, cut, images, weights=weights)
        computed += [entry.computed for entry in cache.report]
    assert computed == [True, False, True, False]


def test_a_cache_without_room_says_why(tmp_path):
    cache = FeatureCache(DiskCache(tmp_path, int(1e-6 * 2**30)))
    assert ask(cache, cut_before(None), torch.randn(10, 3, 32, 32)) is None
    assert "cache.limit_gb" in cache.refused
    assert cache.describe()["entries"] == []


def test_activations_much_larger_than_the_input_are_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "LARGEST_GROWTH", 1)
    cache, cut = FeatureCache(DiskCache(tmp_path, 2**30)), cut_before("layer1")
    assert ask(cache, cut, torch.randn(10, 3, 32, 32)) is None
    assert cache.refused is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    cache = FeatureCache(DiskCache(tmp_path / "file" / "features", 2**30))
    assert ask(cache, cut_before(None), torch.randn(4, 3, 32, 32)) is None
    assert cache.refused


def test_one_pass_fills_what_is_wanted_later(tmp_path):
    cache, cut, images = FeatureCache(DiskCache(tmp_path, 2**30)), cut_before(None), torch.randn(10, 3, 32, 32)
    later = [cut_before("layer4"), cut_before("layer3")]
    ask(cache, cut, images, also=[Wanted(one, {}) for one in later])
    for one in later:
        expected, one.trunk_all = one.trunk(images), None  # nothing is computed any more
        torch.testing.assert_close(ask(cache, one, images)[:10], expected, rtol=1e-4, atol=1e-5)
    assert [entry.computed for entry in cache.report] == [True, True, True]
    assert [entry.cut for entry in cache.report] == ["features", "network.layer3", "network.layer2"]
