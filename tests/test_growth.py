"""A finished run's head gets the classes of new data behind its own (head.grow)."""

import json

import pytest
import torch
from lanes import slow
from safetensors.torch import load_file
from small_run import config_in, train_in
from test_run import StopAt, every_epoch_saved  # noqa: F401  a fixture, and a callback that a config names

import graft
from graft.errors import GraftError, Interrupted
from graft.experiment import assemble
from graft.heads.base import HeadContext, new_head
from graft.model.folder import Description
from graft.model.heads import FirstOutputs, LearnedHead
from graft.report import card, run_page
from graft.training.growth import metrics_of

TINY = [
    "data/domain@data.target=digits",
    "data.image_size=16",
    "data.labels_per_class=null",
    "data.batch_size=8",
    "data.epoch=2",
    "backbone=lenet",
    "head=linear",
    "selection=last",
    "training.epochs=1",
    "training.threads=1",
    "trainer=cpu",
    "logger=csv",
    "callbacks.progress=null",
    "save.predictions=false",
]
NEW = ["data.target_classes=[7,0,5]", "head.grow=true"]  # 0 is an old one
OLD_DATA = ["data/domain@data.source=digits", "data.source_classes=[0,1,2]"]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The folder of a finished run on three digits."""
    root = tmp_path_factory.mktemp("old")
    own = ["data.source=null", "data.target_classes=[0,1,2]", "strategy=scratch", "backbone.weights=null"]
    train_in(root, *TINY, *own, "data.epoch=20", "optimizer.lr=0.01")
    return root / "run"


def begin(old):
    return [*TINY, *NEW, f"head.weights={old}", f"backbone.weights={old}"]


def weights(folder):
    return load_file(folder / "model" / "weights.safetensors")


def right_by_class(results, stage="test/target"):
    """Of every class with a sample, which share of its samples is right."""
    confusion = results["confusion"][stage]
    rows = zip(confusion["classes"], confusion["matrix"], strict=True)
    return {name: row[place] / sum(row) for place, (name, row) in enumerate(rows) if sum(row)}


def test_the_old_rows_come_first_and_labels_follow_their_names(old, tmp_path):
    experiment = assemble(config_in(tmp_path, *begin(old), *OLD_DATA))
    before, head = weights(old), experiment.module.heads["shared"].linear
    assert experiment.data.classes("target") == experiment.data.classes("source") == ("0", "1", "2", "5", "7")
    assert torch.equal(head.weight[:3], before["head.linear.weight"])
    assert torch.equal(head.bias[:3], before["head.linear.bias"])
    assert head.weight[3:].abs().min() > 0  # random, as of a new head
    target, source = experiment.data.domains["target"], experiment.data.domains["source"]
    assert target.test.labels.unique().tolist() == [0, 3, 4]
    assert source.test.labels.unique().tolist() == [0, 1, 2]
    assert experiment.module.tasks["target"].scored == [0, 3, 4]
    digits = torch.tensor([0, 1, 2, 5, 7])
    alone = assemble(config_in(tmp_path, *TINY, "data.source=null", "data.target_classes=[0,5,7]", "strategy=scratch"))
    own = torch.tensor([0, 5, 7])[alone.data.domains["target"].test.labels]
    assert torch.equal(digits[target.test.labels], own)


def test_each_class_is_told_before_and_after_and_the_model_knows_all(old, tmp_path, capsys):
    results = train_in(tmp_path, *begin(old), *OLD_DATA, "data.target_classes=[5,7]", "objective.alpha=0.5")
    grown, finished = results["growth"], json.loads((old / "results.json").read_text())
    assert grown["classes"] == ["0", "1", "2", "5", "7"]
    assert grown["old"] == 3
    of_old_run = right_by_class(finished)
    assert min(of_old_run.values()) < 1 or max(of_old_run.values()) > 0.4  # it has learned something
    assert dict(zip("012", grown["before"], strict=False)) == pytest.approx(of_old_run)  # the same test samples
    assert grown["before"][3:] == [None, None]
    after = right_by_class(results, "test/source") | right_by_class(results)
    assert dict(zip(grown["classes"], grown["after"], strict=True)) == pytest.approx(after)
    assert grown["samples"] == [sum(row) for row in results["confusion"]["test/source"]["matrix"][:3]] + [
        sum(row) for row in results["confusion"]["test/target"]["matrix"][3:]
    ]
    metrics = results["metrics"]
    assert metrics["test/grown/old_acc"] == pytest.approx(sum(after[name] for name in "012") / 3)
    assert metrics["forgetting"] == pytest.approx(metrics["test/grown/old_acc_before"] - metrics["test/grown/old_acc"])
    printed = capsys.readouterr().out
    assert "forgotten" in printed
    assert "source's main metric lost" not in printed

    model = graft.load_run(tmp_path / "run")
    assert model.classes == ("0", "1", "2", "5", "7")
    assert model.head.linear.weight.shape[0] == 5
    text = card.card(tmp_path / "run")
    assert "the first 3 of the classes come from the run run" in text
    assert "| grown | harmonic_mean |" in text
    page = run_page.page(tmp_path / "run").html()
    assert "Old and new classes" in page
    assert "<td>old</td>" in page
    assert "strategy=scratch" not in page  # nothing from scratch has the old classes


@pytest.mark.slow
def test_without_old_test_samples_nothing_is_said_of_them(old, tmp_path, capsys):
    results = train_in(tmp_path, *begin(old), "data.source=null", "data.target_classes=[5,7]", "save.redact=[names]")
    assert results["growth"]["samples"][:3] == [0, 0, 0]
    assert results["growth"]["after"][:3] == results["growth"]["before"][:3] == [None] * 3
    assert results["growth"]["classes"] == [f"class {number}" for number in range(5)]
    assert [name for name in results["metrics"] if "grown" in name] == ["test/grown/new_acc"]
    assert "forgetting" not in results["metrics"]
    assert "no test sample of an old class" in capsys.readouterr().out


def test_means_count_each_class_once_and_the_harmonic_mean_is_of_both():
    growth = {"old": 2, "before": [1.0, 0.8, None, None], "after": [0.5, 0.7, 0.9, None]}
    found = metrics_of(growth)
    assert found["test/grown/old_acc"] == pytest.approx(0.6)
    assert found["test/grown/new_acc"] == pytest.approx(0.9)
    assert found["test/grown/harmonic_mean"] == pytest.approx(2 / (1 / 0.6 + 1 / 0.9))
    assert found["forgetting"] == pytest.approx(0.3)
    assert metrics_of({**growth, "after": [0.0, 0.0, 0.0, None]})["test/grown/harmonic_mean"] == 0.0


HEADS = {
    "linear": {},
    "mlp": {"hidden": [5]},  # as many as the grown outputs: only the last layer's rows grow
    "bottleneck": {"width": 4},
    "attention": {"hidden": 4},
}


def head_of(kind, outputs):
    name = {"mlp": "MLPHead"}.get(kind, f"{kind.title()}Head")
    settings = {"_target_": f"graft.heads.{kind}.{name}", **HEADS[kind]}
    context = HeadContext(6, outputs, tuple(map(str, range(outputs))), 6 if kind == "attention" else None)
    return settings, new_head(settings, context).eval()


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_of_every_kind_says_of_old_classes_what_it_said(kind):
    settings, before = head_of(kind, 3)
    for buffer in before.buffers():
        if buffer.is_floating_point():
            buffer += torch.rand(buffer.shape)
    _, after = head_of(kind, 5)
    new = {name: value.clone() for name, value in after.state_dict().items()}
    description = Description(**{**blank(), "classes": ["0", "1", "2"], "head": settings})
    LearnedHead("run", description, before.state_dict()).fill_rows(after)
    seen = torch.randn(4, 6)
    if kind == "attention":
        from graft.backbones.outputs import Tokens

        seen = Tokens(torch.randn(4, 7, 6), torch.ones(4, 7, dtype=torch.bool))
    torch.testing.assert_close(after(seen)[:, :3], before(seen))
    torch.testing.assert_close(FirstOutputs(after, 3)(seen), before(seen))
    grown = [name for name, value in after.state_dict().items() if value.shape != before.state_dict()[name].shape]
    assert grown
    assert all(torch.equal(after.state_dict()[name][3:], new[name][3:]) for name in grown)


def blank():
    names = ("name", "modality", "backbone", "files", "head", "strategy", "task", "task_state", "classes", "input")
    more = ("reading", "precision", "dtype", "data", "metrics", "selection", "allow", "versions")
    return dict.fromkeys((*names, *more))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["head=mlp"], r"that run's head is a LinearHead, and this one's a MLPHead\. Choose the same head"),
        (
            ["data.target_classes=[0,2]"],
            r"the target has no class that is new: all of 0, 2 are .*head\.grow=false",
        ),
        (["data.source_classes=[0,1,9]", *OLD_DATA[:1]], r"the source has 9, neither among .*data\.source_classes"),
        (["head.weights=nowhere"], "no such folder"),
        (["backbone=cnn"], "no tensor fits|that run's head is another one"),
    ],
)
def test_what_cannot_grow_is_refused(old, tmp_path, overrides, message):
    own = [] if any("source" in one for one in overrides) else ["data.source=null"]
    with pytest.raises(GraftError, match=message):
        assemble(config_in(tmp_path, *begin(old), *own, *overrides))


def changed(old, tmp_path, **values):
    """A copy of the old run's model whose description says something else."""
    folder = tmp_path / "changed" / "model"
    folder.mkdir(parents=True)
    for file in (old / "model").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | values))
    return folder.parent


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": {"_target_": "graft.tasks.regression.Regression"}}, "that run's task is Regression, and this one's"),
        ({"classes": ["0", "1", "1"]}, "two classes '1'"),
        ({"strategy": {"_target_": "graft.strategies.adapter.Adapter"}}, "strategy=adapter added"),
    ],
)
def test_another_run_than_can_be_grown_is_refused_before_data_are_read(old, tmp_path, monkeypatch, values, message):
    monkeypatch.setattr("graft.experiment.build_data", None)
    folder = changed(old, tmp_path, **values)
    with pytest.raises(GraftError, match=message):
        assemble(config_in(tmp_path, *begin(old), "data.source=null", f"head.weights={folder}"))


def test_names_that_differ_in_case_alone_are_noted():
    from graft.data.label_sets import alike_notes

    (note,) = alike_notes(["Rose", "tulip"], ["rose", "daisy"])
    assert "'rose'" in note
    assert "'Rose'" in note


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch_saved")
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(old, tmp_path):
    options = [*begin(old), *OLD_DATA, "objective.alpha=0.5", "term=[lwf]", "training.epochs=3", "allow=[test_run]"]
    whole = train_in(tmp_path, *options, folder="whole")
    with pytest.raises(Interrupted):
        train_in(
            tmp_path, *options, "+callbacks.stop={_target_: test_run.StopAt, epoch: 1, batch: 0}", folder="stopped"
        )
    resumed = train_in(tmp_path, *options, "resume=true", folder="stopped")
    assert resumed["growth"] == whole["growth"]
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("strategy", slow("frozen", "lora", "lp_ft", "gradual"))
def test_it_composes_with_strategies(old, tmp_path, strategy):
    own = ["training.epochs=4"] if strategy == "gradual" else ["training.epochs=2"]
    results = train_in(tmp_path, *begin(old), *OLD_DATA, f"strategy={strategy}", "term=[lwf]", *own)
    assert results["metrics"]["test/grown/old_acc_before"] > 0.4
    assert len(graft.load_run(tmp_path / "run").classes) == 5
