import pytest
import torch

from graft.cache.disk import DiskCache
from graft.data.module import TransferDataModule
from graft.data.sources.image_folder import ImageFolder
from graft.inputs.image.transform import ImageSpec

from .conftest import Numbers


@pytest.fixture
def photo_spec():
    return ImageSpec(channels=3, size=(80, 80), mean=(0.5,) * 3, std=(0.25,) * 3)


def make(domain, spec, cache=None, **options):
    data = TransferDataModule(domain, batch_size=6, eval_batch_size=5, **options)
    data.decoded = None if cache is None else DiskCache(cache, 2**30)
    data.load()
    data.set_input(spec)
    return data


def drawn(loader):
    return [batch.inputs for batch in loader]


@pytest.mark.parametrize("augment", ["none", "light", "crop", "randaugment"])
def test_the_cache_and_workers_change_no_pixel(photos, photo_spec, tmp_path, augment):
    def epoch(cache, workers):
        data = make(ImageFolder(str(photos)), photo_spec, cache, augment=augment, num_workers=workers)
        return drawn(data.train_dataloader()["target"])

    plain = epoch(None, 0)
    runs = [epoch(tmp_path / "cache", 0)]
    if augment == "light":
        runs += [epoch(None, 1), epoch(tmp_path / "cache", 1)]
    for run in runs:
        assert all(torch.equal(a, b) for a, b in zip(plain, run, strict=True))


@pytest.mark.parametrize(
    ("augment", "cached", "workers"),
    [("none", True, False), ("crop", True, False), ("light", True, True), ("none", False, True)],
)
def test_workers_serve_only_what_is_slow(photos, photo_spec, tmp_path, augment, cached, workers):
    cache = tmp_path / "cache" if cached else None
    data = make(ImageFolder(str(photos)), photo_spec, cache, augment=augment, num_workers=1)
    loader = data.train_dataloader()["target"]
    assert loader._slow is workers


def test_nothing_is_decoded_before_the_first_batch(photos, photo_spec, tmp_path):
    data = make(ImageFolder(str(photos)), photo_spec, tmp_path / "cache")
    loaders = [data.train_dataloader()["target"], *data.val_dataloader(), *data.test_dataloader()]
    assert [len(loader) for loader in loaders] == [4, 1, 1]
    iterators = [iter(loader) for loader in loaders]
    assert {path.name for path in (tmp_path / "cache").glob("*/*.*")} == {"graft-entry.json", "looks.json"}
    for iterator in iterators:
        next(iterator)
    assert len({path.name for path in (tmp_path / "cache").glob("*/*.*")}) > 2, "decoded images"


def test_a_split_is_prepared_once_for_all_loaders(spec):
    data = make(Numbers(20), spec)
    first, second = (data.val_dataloader()[0] for _ in range(2))
    assert first._samples.prepared is second._samples.prepared
    data.test_shift = "blur"
    shifted = data.test_dataloader()[0]
    data.test_shift = None
    assert shifted._samples.prepared is data.test_dataloader()[0]._samples.prepared


def test_only_augmentation_touches_the_random_state(spec, monkeypatch):
    monkeypatch.setattr(torch.random, "fork_rng", None)
    assert len(drawn(make(Numbers(20), spec).train_dataloader()["target"])) == 4
    with pytest.raises(TypeError):
        drawn(make(Numbers(20), spec, augment="crop").train_dataloader()["target"])


def test_an_abandoned_iteration_does_not_disturb_the_next(spec):
    loader = make(Numbers(20), spec, augment="light").train_dataloader()["target"]
    whole = drawn(loader)
    next(iter(loader))
    assert all(torch.equal(a, b) for a, b in zip(drawn(loader), whole, strict=True))
