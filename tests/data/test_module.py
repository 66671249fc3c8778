from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from graft.build import build
from graft.cli.hydra_versions import VERSION_BASE
from graft.data.module import TransferDataModule
from graft.data.sources.image_folder import ImageFolder
from graft.errors import GraftError
from graft.tasks.multiclass import Multiclass
from tests.lanes import every_second

from .conftest import Numbers

CONF = Path(__file__).parents[2] / "conf"
DOMAINS = sorted(path.stem for path in (CONF / "data" / "domain").glob("[!_]*.yaml"))


def make(spec, target=None, source=None, domains=("target",), **options):
    data = TransferDataModule(target or Numbers(20), source, **options)
    data.load()
    data.set_input(spec)
    data.train_domains = domains
    return data


def numbers(batch):
    """Which samples a batch of `Numbers` holds."""
    return (batch.inputs[:, 0, 0, 0] * 255).round().int().tolist()


def test_target_only(spec):
    data = make(spec, batch_size=8)
    loaders = data.train_dataloader()
    assert set(loaders) == {"target"}
    batches = [batch["target"] if isinstance(batch, dict) else batch for batch in loaders["target"]]
    assert [len(batch) for batch in batches] == [8, 8, 4]
    assert sorted(n for batch in batches for n in numbers(batch)) == list(range(20))
    assert all((torch.tensor(numbers(batch)) % 2).equal(batch.labels) for batch in batches)
    assert all(numbers(batch) == batch.indices.tolist() for batch in batches)


@pytest.mark.parametrize(("epoch", "steps"), [("target", 4), ("source", 7), ("longest", 7), (5, 5)], ids=str)
def test_both_sides_have_the_length_that_the_epoch_key_says(spec, epoch, steps):
    data = make(spec, Numbers(20), Numbers(33, first=100), ("target", "source"), batch_size=5, epoch=epoch)
    loaders = data.train_dataloader()
    assert data.steps_per_epoch == steps
    assert {len(list(loader)) for loader in loaders.values()} == {steps}


def test_the_target_is_drawn_the_same_with_and_without_a_source(spec):
    alone = make(spec, batch_size=5, augment="light").train_dataloader()["target"]
    data = make(spec, None, Numbers(33, first=100), ("target", "source"), batch_size=5, augment="light")
    joint = data.train_dataloader()["target"]
    assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(alone, joint, strict=True))


def test_steps_follow_the_target_even_when_only_the_source_is_drawn(spec):
    data = make(spec, Numbers(20), Numbers(33), ("source",), batch_size=5)
    assert data.steps_per_epoch == 4
    assert len(list(data.train_dataloader()["source"])) == 4


def test_evaluation_gives_each_domain_in_order(spec):
    data = make(spec, Numbers(20), Numbers(20, first=100), eval_batch_size=4)
    data.eval_domains = ("source", "target")
    batches = [batch for loader in data.val_dataloader() for batch in loader]
    assert [list(batch) for batch in batches] == [["source"]] * 2 + [["target"]] * 2
    drawn = [number for batch in batches for one in batch.values() for number in numbers(one)]
    assert drawn == [*range(100, 107), *range(7)]
    assert [next(iter(next(iter(loader)))) for loader in data.test_dataloader()] == ["target", "source"]


def test_budget_leaves_validation_and_test_alone(spec):
    data = make(spec, Numbers(20), labels_per_class=3)
    sizes = {key: data.summary()["target"][key] for key in ("train", "val", "test", "labels", "pool")}
    assert sizes == {"train": 6, "val": 7, "test": 9, "labels": {"train": 6, "val": 7}, "pool": 20}
    other = make(spec, Numbers(20), labels_per_class=3, subset_seed=1)
    assert not torch.equal(data.domains["target"].train.inputs, other.domains["target"].train.inputs)
    assert torch.equal(data.domains["target"].test.inputs, other.domains["target"].test.inputs)


def test_labels_of_an_unlabelled_target_are_gone(spec):
    data = make(spec, Numbers(20), Numbers(20), ("target", "source"), target_setting="unsupervised", balance="sampler")
    assert data.domains["target"].train.labels is None
    loaders = data.train_dataloader()
    assert next(iter(loaders["target"])).labels is None
    assert next(iter(loaders["source"])).labels is not None
    assert data.summary()["target"]["labels"]["train"] == 0
    assert next(iter(data.test_dataloader()[0]))["target"].labels is not None, "measured, not learned from"
    with pytest.raises(GraftError, match="target_setting=unsupervised has no labels to budget"):
        make(spec, target_setting="unsupervised", labels_per_class=1)


def test_class_weights_are_inverse_to_frequency(spec):
    data = make(spec, Numbers(9, classes=2), balance="weights")  # 5 and 4
    weights = data.class_weights("target")
    assert weights.tolist() == pytest.approx([0.9, 1.125])
    assert make(spec).class_weights("target") is None


def test_what_the_model_asks(spec):
    data = make(spec, Numbers(classes=2), Numbers(classes=3))
    assert data.num_outputs("source", Multiclass()) == 3
    assert not data.same_classes
    assert make(spec, Numbers(), Numbers()).same_classes
    assert not make(spec).same_classes
    assert data.channels == 1


def test_a_new_epoch_draws_anew_and_the_first_repeats_in_a_new_run(spec):
    def epoch(data, number):
        loader = data.train_dataloader()["target"]
        loader.batch_sampler.set_epoch(number)
        return torch.cat([batch.inputs for batch in loader])

    data = make(spec, augment="light", batch_size=8)
    assert torch.equal(epoch(data, 0), epoch(make(spec, augment="light", batch_size=8), 0))
    assert not torch.equal(epoch(data, 0), epoch(data, 1))
    assert not torch.equal(epoch(data, 0), epoch(make(spec, augment="light", batch_size=8, seed=1), 0))


def test_drawing_leaves_the_global_random_state_alone(spec):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    next(iter(make(spec, augment="randaugment").train_dataloader()["target"]))
    assert torch.equal(before, torch.random.get_rng_state())


def test_photos_are_drawn_from_disk(spec, photos):
    spec = replace(spec, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    data = make(spec, ImageFolder(str(photos)), batch_size=4, augment="light", labels_per_class=5)
    batch = next(iter(data.train_dataloader()["target"]))
    assert batch.inputs.shape == (4, 3, 8, 8)
    assert batch.labels.shape == (4,)


def test_messages_name_the_side(spec, tmp_path):
    with pytest.raises(GraftError, match=r"data\.source\.root="):
        make(spec, Numbers(), ImageFolder(str(tmp_path / "nowhere")))
    with pytest.raises(GraftError, match=r"data\.epoch=source, but data\.source is null"):
        make(spec, epoch="source").train_dataloader()


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "data").glob("[!_]*.yaml")))
def test_every_shipped_config_builds(option):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("train", overrides=[f"data={option}"])
    data = OmegaConf.create({"seed": 3, "paths": {"data_dir": "somewhere"}, "data": config.data}).data
    if option in ("detection", "image_folder", "shards", "speech"):
        data.target.root = "photos"
    module = build(data)
    assert module.seed == module.subset_seed == 3
    assert module.split_seed == 0
    alone = ("detection", "image_folder", "mnist", "multimodal", "sequences", "shards", "speech", "table", "text")
    assert (module.source is None) == (option in alone)


@pytest.mark.parametrize("option", every_second(DOMAINS))
def test_either_side_may_be_any_domain(option):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        sides = [f"data/domain@data.{side}={option}" for side in ("source", "target")]
        config = compose("train", overrides=["data=image_folder", *sides])
    assert config.data.source._target_ == config.data.target._target_
    assert config.data.target._target_.startswith("graft.data.")
