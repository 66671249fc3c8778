"""Names as samples of a probe: the fit against scikit-learn's, what a finished run gives, runs, and what is refused."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from small_run import config_in, train_in

import graft
from graft.cache.disk import DiskCache
from graft.cache.extract import extract
from graft.cli.notebook import check_composed
from graft.errors import GraftError
from graft.experiment import assemble
from graft.heads.base import HeadContext
from graft.heads.class_names import ClassNamesHead
from graft.heads.cross_modal import CrossModalHead
from graft.heads.towers.characters import Characters
from graft.heads.towers.encoder import Encoder
from graft.model.folder import Description
from graft.model.heads import LearnedHead
from graft.probe.fit import solved
from graft.probe.solver import Rows
from graft.report.tables import choice_lines
from graft.tasks.multiclass import Multiclass

CLASSES, OTHERS = ("one", "two", "three"), ("cat", "dog")
SPLITS = {"train": (5, 5, 0), "val": (3, 3, 3), "test": (3, 3, 3)}
KEYS_OF_SPLITS = {"file": "train", "val_file": "val", "test_file": "test"}


def learned_head(classes=CLASSES, size=4):
    """A head of names in eval mode whose projection, scale and statistics are not those that it began with."""
    torch.manual_seed(0)
    head = ClassNamesHead(HeadContext(6, len(classes), classes), Characters(size, 5))
    with torch.no_grad():
        head.log_scale.add_(0.3)
        head.project[0].running_mean.add_(torch.randn(6))
        head.project[1].weight.mul_(2)
    return head.eval()


def head_of(classes=CLASSES, size=4, **keys):
    torch.manual_seed(1)
    head = CrossModalHead(HeadContext(6, len(classes), classes), Characters(size, 5), **keys)
    head.ask_tower()
    return head.eval()


def as_a_run(head, classes):
    described = Description.__new__(Description)
    object.__setattr__(described, "classes", [*classes])
    object.__setattr__(described, "head", {"_target_": "graft.heads.class_names.ClassNamesHead"})
    return LearnedHead("run", described, head.state_dict())


@pytest.mark.parametrize("classes", [CLASSES, OTHERS])
def test_before_the_fit_it_says_what_the_names_of_a_finished_run_say(classes):
    learned, head = learned_head(CLASSES), head_of(classes)
    as_a_run(learned, CLASSES).fill(head, classes)
    expected = learned_head(classes)  # whose projection and tower come from the same seed
    features = torch.randn(5, 6)
    torch.testing.assert_close(head.vectors(), expected.vectors())
    torch.testing.assert_close(head(features), expected(features))
    assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]
    again = head_of(classes)
    as_a_run(head, classes).fill(again, classes)  # of the same kind, whose tower is gone
    torch.testing.assert_close(again.state_dict(), head.state_dict())


def test_a_run_of_another_tower_or_kind_is_refused():
    with pytest.raises(GraftError, match="that run's head is another one"):
        as_a_run(learned_head(size=3), CLASSES).fill(head_of(), CLASSES)
    for state in (torch.nn.Linear(6, 3), head_of(OTHERS)):
        with pytest.raises(GraftError, match="that run's head is another one"):
            as_a_run(state, OTHERS).fill(head_of(), CLASSES)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_the_fit_is_scikit_learns_of_samples_and_names(weight, balanced):
    head = head_of(name_weight=weight)
    as_a_run(learned_head(), CLASSES).fill(head, CLASSES)
    features, labels = (
        torch.randn(20, 6),
        torch.arange(20) % (2 if weight else 3),
    )  # of the third class a name is enough
    of_classes = torch.tensor([0.5, 2.0, 1.0]) if balanced else None
    module = SimpleNamespace(
        tasks={"target": Multiclass()}, class_weights={"target": of_classes}, head=lambda domain: head
    )
    experiment = SimpleNamespace(module=module, data=SimpleNamespace(num_outputs=lambda domain, task: 3))
    found = solved(experiment, "target", features, labels, [1e-2])
    unit = torch.nn.functional.normalize(head.project(features), dim=1).detach()
    weights = torch.ones(20) if of_classes is None else of_classes[labels] / of_classes[labels].mean()
    if weight:
        unit, labels = torch.cat([unit, head.vectors()]), torch.cat([labels, torch.arange(3)])
        weights = torch.cat([weights, torch.full((3,), weight)])
        weights = weights / weights.mean()
    model = LogisticRegression(C=Rows(unit).scale ** 2 / (len(unit) * 1e-2), tol=1e-8, max_iter=10_000)
    z = (unit - unit.mean(0)).double().numpy()
    expected = model.fit(z, labels.numpy(), weights.numpy()).predict_proba(z)
    np.testing.assert_allclose(found.logits(unit)[0].softmax(-1).numpy(), expected, atol=1e-4)


def keys_of(folder):
    return [
        *("data/domain@data.target=digits", "data.source=null", "data.labels_per_class=3", "strategy=probe"),
        *("trainer=cpu", "logger=[]", "save.neighbours=false"),
        *("backbone=clip_image", f"backbone.name={folder}", "backbone.weights=pretrained"),
        *("head=cross_modal", "head/tower=encoder", f"head.tower.name={folder}", "head.tower.size=12"),
        *("head.projection=none", "head.names={0: zero, 1: one, 2: two, 3: three}", "head.name_weight=2"),
    ]


def test_a_run_fits_samples_and_names_and_its_model_needs_the_texts_no_more(clip_folder, tmp_path):
    folder = shutil.copytree(clip_folder, tmp_path / "clip")
    words = keys_of(folder)
    results = train_in(tmp_path, *words)
    assert results["labels"]["training"] == 30
    assert results["parameters"]["trainable"] == 12 * 10 + 10
    assert (results["probe"]["names"], results["probe"]["name_weight"]) == (10, 2.0)
    assert any("10 names of weight 2 as samples" in line for line in choice_lines(results))

    experiment = assemble(config_in(tmp_path, *words, folder="again"))
    cache = DiskCache(tmp_path / "own", 2**30)
    found = {
        name: extract(experiment.module.backbone, experiment.data, "target", name, cache) for name in ("train", "test")
    }
    shutil.rmtree(folder)
    names = ["zero", "one", "two", "three", *"456789"]
    with torch.no_grad():
        rows = ClassNamesHead.vectors_by(Encoder(str(clip_folder), size=12), [[name] for name in names])
    unit = {name: torch.nn.functional.normalize(one.features, dim=1) for name, one in found.items()}
    x, y = torch.cat([unit["train"], rows]), torch.cat([found["train"].labels, torch.arange(10)])
    weights = np.repeat([1.0, 2.0], [30, 10])
    strength = Rows(x).scale ** 2 / (40 * results["probe"]["penalty"])
    model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
    mean = x.mean(0)
    model.fit((x - mean).double().numpy(), y.numpy(), weights / weights.mean())
    expected = model.predict_proba((unit["test"] - mean).double().numpy())
    network = graft.load_run(tmp_path / "run")
    images = torch.cat([batch.inputs for batch in experiment.data.plain_batches("target", "test")])
    with torch.no_grad():
        logits = network.head(network.backbone(images))
    np.testing.assert_allclose(logits.softmax(-1).numpy(), expected, atol=1e-3)
    assert results["metrics"]["test/target/acc"] == pytest.approx(
        float((expected.argmax(1) == found["test"].labels.numpy()).mean()), abs=0.005
    )


def pictures(folder, split, counts):
    """A CSV of grey pictures of three classes, so many of each."""
    random, lines = np.random.default_rng(len(split)), ["path,label"]
    for label, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
        for number in range(count):
            pixels = random.integers(0, 60, (16, 16, 3)) + 90 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}_{name}_{number}.png")
            lines.append(f"{split}_{name}_{number}.png,{name}")
    (folder / f"{split}.csv").write_text("\n".join(lines))
    return folder / f"{split}.csv"


def test_a_class_without_a_sample_is_known_by_its_name_and_no_other_head_knows_it(clip_folder, tmp_path):
    files = {split: pictures(tmp_path, split, counts) for split, counts in SPLITS.items()}
    words = [
        *("data.source=null", "data/domain@data.target=image_file", "data.target.classes=[one,two,three]"),
        *(f"data.target.{key}={files[split]}" for key, split in KEYS_OF_SPLITS.items()),
        *("data.labels_per_class=2", "trainer=cpu", "logger=[]", "save.neighbours=false"),
        *("backbone=clip_image", f"backbone.name={clip_folder}", "backbone.weights=pretrained"),
        *("strategy=probe", "strategy.penalties=[1e-6]"),
    ]
    names = ["head/tower=encoder", f"head.tower.name={clip_folder}", "head.tower.size=12", "head.projection=none"]
    results = train_in(tmp_path, *words, "head=cross_modal", *names)
    assert (results["labels"]["training"], results["probe"]["names"]) == (4, 3)
    assert "train has no sample of three" in results["data"]["target"]["notes"]
    head = graft.load_run(tmp_path / "run").head
    with torch.no_grad():
        assert head.linear(head.vectors()).argmax(1).tolist() == [0, 1, 2]
    assemble(config_in(tmp_path, *words, "head=cross_modal", *names, folder="shared"), share_data=True)
    with pytest.raises(GraftError, match="no training sample has the label 'three', one of 3 classes"):
        assemble(config_in(tmp_path, *words, folder="linear"), share_data=True)  # a job of the same sweep


TOWERS = (
    *("data/domain@data.target=digits", "data.target_classes=[6,7,8,9]", "backbone=lenet", "data.image_size=16"),
    *("head.tower.size=8", "head.tower.hidden=8", "trainer=cpu", "logger=[]", "training.threads=1"),
    *("data/domain@data.source=glyphs", "data.source_classes=[0,1,2,3,4,5,6]"),
)


@pytest.mark.slow
def test_towers_of_another_run_and_of_the_same_run_give_the_same_fit(tmp_path):
    cache = tmp_path / "cache"
    pairs = ("pretrain=clip", "pretrain.epochs=1", "backbone.weights=source")
    train_in(tmp_path, *TOWERS, *pairs, "head=class_names", "strategy=zero_shot", folder="towers", cache=cache)
    probe = (*TOWERS, "head=cross_modal", "strategy=probe", "data.labels_per_class=3")
    begin = [f"{part}.weights={tmp_path / 'towers'}" for part in ("head", "backbone")]
    after = train_in(tmp_path, *probe, *begin, folder="after", cache=cache)
    source_head = ("+head@source_head=class_names", "source_head.tower.size=8", "source_head.tower.hidden=8")
    within = train_in(tmp_path, *probe, *pairs, *source_head, folder="within", cache=cache)
    assert within["probe"] == after["probe"]
    assert within["metrics"]["test/target/loss"] == pytest.approx(after["metrics"]["test/target/loss"], abs=1e-4)
    kept = [graft.load_run(tmp_path / folder).head.project.state_dict() for folder in ("towers", "after", "within")]
    torch.testing.assert_close(kept[1], kept[0], rtol=0, atol=0)  # the statistics of BatchNorm too
    torch.testing.assert_close(kept[2], kept[0], rtol=0, atol=0)
    of_names = json.loads((tmp_path / "towers/results.json").read_text())["metrics"]["test/source/acc"]
    assert after["metrics"]["test/source/acc"] == within["metrics"]["test/source/acc"] == pytest.approx(of_names)


def test_a_source_of_the_same_classes_has_a_head_of_its_own_kind(tmp_path):
    own = ("head=cross_modal", "strategy=probe", "+head@source_head=class_names", "backbone.weights=source")
    words = ("data=glyphs_digits", "backbone=lenet", "pretrain=clip", "trainer=cpu", "logger=[]")
    heads = assemble(config_in(tmp_path, *words, *own)).module.heads
    assert {name: type(head) for name, head in heads.items()} == {"source": ClassNamesHead, "target": CrossModalHead}


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (
            ["strategy=full", "backbone.weights=imagenet", "head.grow=true"],
            ["names are samples of strategy=probe alone", "begin with a run of head=class_names", "names are enough"],
        ),
        (["strategy=zero_shot", "backbone.weights=source"], ["strategy=probe alone", "+head@source_head=class_names"]),
        (["strategy=probe", "backbone.weights=source", "head.name_weight=-1"], ["head.name_weight=-1"]),
    ],
)
def test_what_it_cannot_be_meant_with_is_refused_before_anything_is_read(overrides, messages):
    with pytest.raises(GraftError) as error:
        check_composed(["head=cross_modal", *overrides])
    for message in messages:
        assert message in str(error.value)
