"""Training with frozen parts that run once: the same as without, and with less work."""

import copy

import pytest
import pytorch_lightning as pl
import torch
import toy
from lanes import slow
from torch import nn

from graft.backbones.torchvision import TorchvisionBackbone
from graft.cache.disk import DiskCache
from graft.cache.extract import extract
from graft.cache.features import FeatureCache
from graft.callbacks.frozen_features import FrozenFeatures
from graft.data.module import TransferDataModule
from graft.data.sources.digits import Digits
from graft.errors import GraftError
from graft.heads.bottleneck import BottleneckHead
from graft.objectives.alpha import AlphaWeighted
from graft.strategies.fine_tune import FineTune
from graft.strategies.freeze_until import FreezeUntil
from graft.strategies.frozen import Frozen
from graft.strategies.full import Full
from graft.strategies.gradual import Gradual
from graft.strategies.lp_ft import LinearProbeThenFineTune
from graft.terms.base import Term, Update
from graft.terms.regularization.feature_distillation import FeatureDistillation
from graft.terms.regularization.l2sp import L2SP
from graft.training.batch_transforms import Mixing, ProgressiveResizing
from graft.training.evaluation import outputs_of
from graft.training.schedules import Cosine
from graft.weights.averaging import Restated

EPOCHS = 4


class Count(pl.Callback):
    """Inputs that went through the backbone's first convolution, in training and in the phases' preparations."""

    def __init__(self):
        self.images = 0

    def on_fit_start(self, trainer, pl_module):
        convolution = pl_module.backbone.get_submodule("network.conv1")
        self.hook = convolution.register_forward_hook(lambda _m, x, _y: self.note(x[0]))

    def note(self, images):
        self.images += len(images) * bool(images.isfinite().all())

    def on_fit_end(self, trainer, pl_module):
        self.hook.remove()


class Values(pl.Callback):
    """The loss of every step and every validation metric."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))

    def on_validation_end(self, trainer, pl_module):
        self.values += [float(value) for name, value in sorted(trainer.callback_metrics.items()) if "val" in name]


def parts(strategy, alpha=0.0, augment="none", terms=None, batch_transforms=(), bn="joint"):
    torch.manual_seed(0)
    backbone = TorchvisionBackbone("resnet18", size=16, channels=1)
    data = TransferDataModule(
        source=Digits(), target=Digits(), batch_size=20, labels_per_class=4, augment=augment, eval_batch_size=100
    )
    data.load()
    data.set_input(backbone.input_spec)
    objective = AlphaWeighted(alpha)
    data.train_domains = objective.domains()
    module = toy.module_of(
        backbone,
        classes=10,
        objective=objective,
        strategy=strategy,
        schedule=Cosine(),
        optimizer=toy.optimizer(lr=0.01, momentum=0.9),
        terms=terms,
        batch_transforms=batch_transforms,
        bn=bn,
    )
    return module, data


def fit(module, data, callbacks, resume=None, **options):
    trainer = toy.trainer_on_cpu(callbacks, max_epochs=EPOCHS, use_distributed_sampler=False, **options)
    trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    return trainer


def both(tmp_path, **settings):
    """(with the cache, without): what training showed, and the weights after it."""
    results = []
    for cached in (True, False):
        module, data = parts(**copy.deepcopy(settings))
        values, count = Values(), Count()
        features = [FrozenFeatures(FeatureCache(DiskCache(tmp_path, 2**30)))] if cached else []
        fit(module, data, [*features, values, count])
        results.append((torch.tensor(values.values), module.state_dict(), count.images))
    return results


@pytest.mark.parametrize(
    ("strategy", "alpha"),
    [
        (LinearProbeThenFineTune(), 0.0),
        *slow(
            (Frozen(), 0.0),
            (Frozen(), 0.5),
            (FineTune(freeze_epochs=2), 0.0),
            (FreezeUntil(stages=4), 0.0),
            (FreezeUntil(stages=4), 0.5),
            (Gradual(every_epochs=2), 0.0),
        ),
    ],
)
def test_the_cache_changes_nothing_but_the_work(tmp_path, strategy, alpha):
    (values, state, images), (expected, expected_state, all_images) = both(tmp_path, strategy=strategy, alpha=alpha)
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-5)
    for name, value in state.items():
        torch.testing.assert_close(value, expected_state[name], rtol=1e-4, atol=1e-5)
    assert images < 0.8 * all_images


def said_of_validation(strategy, features):
    """What a trained module says of its validation samples, and how many images its first layer saw for that."""
    module, data = parts(strategy)
    count = Count()
    trainer = toy.trainer_on_cpu(features, max_epochs=1, use_distributed_sampler=False)
    trainer.fit(module, data)
    count.on_fit_start(trainer, module)
    outputs = outputs_of(trainer, module, data.eval_loader("target", "val"))
    count.on_fit_end(trainer, module)
    assert module.cut is None  # let go of, as other weights may be loaded now
    assert not data.stored
    return outputs, count.images


def test_validation_samples_are_predicted_from_the_features_that_validation_read(tmp_path):
    kept = FeatureCache(DiskCache(tmp_path, 2**30))
    outputs, images = said_of_validation(Frozen(), [FrozenFeatures(kept)])
    expected, all_images = said_of_validation(Frozen(), [])
    assert (images, all_images) == (0, len(expected.indices))
    assert torch.equal(outputs.indices, expected.indices)
    for name in ("predictions", "logits", "features"):
        torch.testing.assert_close(getattr(outputs, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    assert [entry.split for entry in kept.report] == ["train", "val"]  # once, however often they were read


def test_where_the_backbone_trained_validation_samples_go_through_it(tmp_path):
    outputs, images = said_of_validation(
        FreezeUntil(stages=4), [FrozenFeatures(FeatureCache(DiskCache(tmp_path, 2**30)))]
    )
    assert images == len(outputs.indices)


def validated_outside_of_a_fit(augment, features):
    """A frozen run's head of BatchNorm after a validation with statistics of its own, and what the first layer saw."""
    module, data = parts(Frozen(), augment=augment)
    torch.manual_seed(1)
    module.heads["shared"] = BottleneckHead(module.backbone.feature_size, 10, width=8)
    module.requires_grad_(True)
    trainer = toy.trainer_on_cpu(features, max_epochs=2, use_distributed_sampler=False)
    trainer.fit(module, data)
    count, restated = Count(), Restated(int(trainer.num_training_batches))
    after = toy.trainer_on_cpu([*features, restated], max_epochs=2, use_distributed_sampler=False)
    count.on_fit_start(after, module)
    (metrics,) = after.validate(module, data, verbose=False)
    count.on_fit_end(after, module)
    assert module.cut is None
    assert module.kept is None
    assert not data.stored
    return metrics, module.heads.state_dict(), count.images


@pytest.mark.parametrize("augment", ["none", *slow("light")])
def test_validation_outside_of_a_fit_reads_the_features_that_the_fit_has_kept(tmp_path, augment):
    kept = FeatureCache(DiskCache(tmp_path, 2**30))
    metrics, head, images = validated_outside_of_a_fit(augment, [FrozenFeatures(kept)])
    expected, other_head, all_images = validated_outside_of_a_fit(augment, [])
    assert (images > 0) == (augment == "light")  # training samples for the head's statistics: new views are not kept
    assert images < all_images
    assert metrics == pytest.approx(expected, rel=1e-4)
    for name, value in head.items():
        torch.testing.assert_close(value, other_head[name], rtol=1e-4, atol=1e-5)


def test_validation_outside_of_a_fit_sees_other_weights_of_a_backbone_as_they_are(tmp_path):
    module, data = parts(Frozen())
    module.heads["shared"].weight.data.mul_(20)
    features = FrozenFeatures(FeatureCache(DiskCache(tmp_path, 2**30)))
    found = []
    for factor in (1.0, -1.0):
        with torch.no_grad():
            module.backbone.get_submodule("network.conv1").weight.mul_(factor)
        for callbacks in ([features], []):
            trainer = toy.trainer_on_cpu(callbacks, max_epochs=1, use_distributed_sampler=False)
            found.append(trainer.validate(module, data, verbose=False)[0]["val/target/loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[2] == pytest.approx(found[3], rel=1e-4)
    assert found[0] != pytest.approx(found[2], rel=1e-2)


class Further(Term):
    """Takes a further step of a head of its own on the target's features."""

    weight, needs_inputs = 1.0, False

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(512, 10)

    def forward(self, step):
        return None

    def updates(self):
        return (
            Update(lambda step: (self.head(step.features["target"]) - step.logits["target"]).abs().mean(), ("term",)),
        )


@pytest.mark.slow
def test_a_terms_further_steps_take_the_cached_features(tmp_path):
    torch.manual_seed(0)
    terms = {"further": Further()}
    (_, state, images), (_, expected, all_images) = both(tmp_path, strategy=Frozen(), terms=terms)
    torch.testing.assert_close(state["terms.further.head.weight"], expected["terms.further.head.weight"])
    assert not torch.equal(state["terms.further.head.weight"], terms["further"].head.weight)
    assert images < 0.5 * all_images


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [FreezeUntil(stages=4), Gradual(every_epochs=2), LinearProbeThenFineTune()])
def test_where_the_backbone_trains_rounding_is_the_same_too(tmp_path, strategy):
    (values, state, _), (expected, expected_state, _) = both(tmp_path, strategy=strategy)
    assert torch.equal(values, expected)
    assert all(torch.equal(value, expected_state[name]) for name, value in state.items())


@pytest.mark.slow
def test_one_pass_computes_what_all_phases_need(tmp_path):
    module, data = parts(Gradual(every_epochs=1))
    cache, count = FeatureCache(DiskCache(tmp_path, 2**30)), Count()
    fit(module, data, [FrozenFeatures(cache), count])
    samples = len(data.domains["target"].train) + len(data.domains["target"].val)
    assert {entry.cut for entry in cache.report} == {"features", *(f"network.layer{n}" for n in (3, 2, 1))}
    assert all(entry.computed for entry in cache.report)
    assert count.images < 1.2 * samples


@pytest.mark.slow
def test_a_second_run_computes_nothing(tmp_path):
    for first in (True, False):
        module, data = parts(Frozen())
        cache = FeatureCache(DiskCache(tmp_path, 2**30))
        count = Count()
        trainer = fit(module, data, [FrozenFeatures(cache), count])
        trainer.test(module, data, verbose=False)
        assert [(entry.domain, entry.split) for entry in cache.report] == [
            ("target", "train"),
            ("target", "val"),
            ("target", "test"),
            ("source", "test"),
        ]
        assert all(entry.computed == first for entry in cache.report)
        assert (count.images > 300) == first  # but a few, on which the network is tried out


def test_a_frozen_run_after_extract_computes_nothing(tmp_path):
    module, data = parts(Frozen())
    disk = DiskCache(tmp_path, 2**30)
    found = {name: extract(module.backbone, data, "target", name, disk) for name in ("train", "val")}
    kept = FeatureCache(disk)
    rows = {}

    class Rows(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            rows["train"], rows["val"] = (data.stored["target", name][:] for name in ("train", "val"))

    fit(module, data, [FrozenFeatures(kept), Rows()])
    assert [(entry.split, entry.computed) for entry in kept.report] == [("train", False), ("val", False)]
    for name, one in found.items():
        split = getattr(data.domains["target"], name)
        assert torch.equal(one.features, rows[name])
        assert torch.equal(one.labels, split.labels)
        assert torch.equal(one.indices, torch.arange(len(split)))
    again = extract(module.backbone, data, "target", "train", disk)
    assert torch.equal(again.features, found["train"].features)


@pytest.mark.slow
def test_extract_without_room_on_the_disk_gives_the_same_features(tmp_path):
    module, data = parts(Frozen())
    module.backbone.train()
    sets = [extract(module.backbone, data, "source", "val", DiskCache(tmp_path / str(n), n)) for n in (0, 2**30)]
    torch.testing.assert_close(sets[0].features, sets[1].features)
    assert module.backbone.training
    with torch.no_grad():
        images = torch.cat([batch.inputs for batch in data.plain_batches("source", "val")])
        torch.testing.assert_close(sets[1].features, module.backbone.eval()(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(GraftError, match=r"no split target trian\. Allowed: .*target train, target val"):
        extract(module.backbone, data, "target", "trian", DiskCache(tmp_path, 2**30))


@pytest.mark.slow
def test_other_weights_and_other_data_have_features_of_their_own(tmp_path):
    computed = []
    for labels_per_class, seed in ((4, 0), (5, 0), (4, 1), (4, 0)):
        module, data = parts(Frozen())
        torch.manual_seed(seed)
        nn.init.normal_(module.backbone.network.conv1.weight)
        data.domains = {}
        data.labels_per_class = labels_per_class
        data.load()
        cache = FeatureCache(DiskCache(tmp_path, 2**30))
        fit(module, data, [FrozenFeatures(cache)])
        computed.append([entry.computed for entry in cache.report])
    assert computed == [[True, True], [True, False], [True, True], [False, False]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "entries"),
    [
        ({"augment": "light"}, ["val"]),
        ({"batch_transforms": [Mixing({"target": 10}, mixup_alpha=0.2)]}, ["val"]),
        ({"batch_transforms": [ProgressiveResizing(EPOCHS, 0.5)]}, []),
        ({"bn": "domain_specific"}, []),
        ({"terms": {"feature_distillation": FeatureDistillation(1.0)}}, []),
        ({"terms": {"l2sp": L2SP(1.0)}}, ["train", "val"]),
    ],
)
def test_only_what_never_changes_is_kept(tmp_path, settings, entries):
    from graft.terms.base import TermContext

    module, data = parts(FreezeUntil(stages=4), **settings)
    for term in module.terms.values():
        head = module.heads["shared"]
        term.prepare(
            TermContext(
                backbone=module.backbone,
                heads={"shared": head},
                target_head=head,
                pretrained_head=None,
                pretrained=True,
                num_classes=10,
                samples=lambda: data.plain_batches("target", "train"),
                source_samples=None,
            )
        )
    cache = FeatureCache(DiskCache(tmp_path, 2**30))
    fit(module, data, [FrozenFeatures(cache)])
    assert [entry.split for entry in cache.report] == entries


@pytest.mark.slow
def test_what_trains_from_the_first_layer_on_keeps_nothing(tmp_path):
    module, data = parts(Full())
    cache = FeatureCache(DiskCache(tmp_path, 2**30))
    fit(module, data, [FrozenFeatures(cache)])
    assert cache.report == []


def test_a_part_of_an_epoch_is_not_worth_the_whole_split(tmp_path):
    module, data = parts(Frozen())
    cache = FeatureCache(DiskCache(tmp_path, 2**30))
    fit(module, data, [FrozenFeatures(cache)], limit_train_batches=1, limit_val_batches=1)
    assert cache.report == []


class Batches(pl.Callback):
    """The values that each epoch trained on, by label order."""

    def __init__(self):
        self.epochs = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.epochs.setdefault(trainer.current_epoch, []).append(batch["target"].stored.sort(0).values)


@pytest.mark.slow
def test_augmented_views_take_turns(tmp_path):
    module, data = parts(Frozen(), augment="light")
    data.batch_size = 40  # all samples in one batch, so that their order does not matter
    cache, batches = FeatureCache(DiskCache(tmp_path, 2**30)), Batches()
    fit(module, data, [FrozenFeatures(cache, views=2), batches])
    epochs = [batches.epochs[epoch][0] for epoch in range(EPOCHS)]
    assert [entry.split for entry in cache.report] == ["train", "train", "val"]
    assert torch.equal(epochs[0], epochs[2])
    assert torch.equal(epochs[1], epochs[3])
    assert not torch.allclose(epochs[0], epochs[1])


class StopAt(pl.Callback):
    """Ends a fit as a kill would, with what was saved before."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.folder / "stopped.ckpt")
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_a_run_resumes_inside_any_phase_bit_for_bit(tmp_path, step):
    def run(callbacks, resume=None):
        module, data = parts(Gradual(every_epochs=1))
        fit(module, data, [FrozenFeatures(FeatureCache(DiskCache(tmp_path / "cache", 2**30))), *callbacks], resume)
        return module.state_dict()

    expected = run([])
    stop = StopAt(step)
    stop.folder = tmp_path
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run([stop])
    state = run([], resume=tmp_path / "stopped.ckpt")
    assert all(torch.equal(value, state[name]) for name, value in expected.items())
