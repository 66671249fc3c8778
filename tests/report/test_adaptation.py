"""A run with a source: what its page shows of both domains, before and after."""

import csv
import json
import shutil

import pytest
import yaml

from graft.inspection import findings
from graft.inspection.findings import correct_before, features_of
from graft.inspection.opened import open_run
from graft.report import adaptation
from graft.report.kept import target_predictions
from graft.runs import record
from tests.small_run import config_in, train_in

TINY = [
    *("backbone=lenet", "data.image_size=16", "data.source.samples=300", "data.labels_per_class=null"),
    *("data.target_setting=unsupervised", "data.epoch=2", "data.batch_size=16", "data.eval_batch_size=512"),
    *("objective.alpha=1", "selection=last", "training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv"),
    *("callbacks.progress=null", "pretrain.epochs=1", "term=[dann]", "term.dann.hidden=8"),
]


def trained(root, *overrides):
    """The folder of a run with the config beside it, as a command leaves it."""
    train_in(root, *TINY, *overrides)
    (root / "run" / "config.yaml").write_text(yaml.safe_dump(config_in(root, *TINY, *overrides)))
    return root / "run"


def looked_into(folder):
    """What is found of source and target in the network and its data, and the test predictions."""
    found, opened = target_predictions(folder), open_run(folder, record.read(folder), [])
    return {**features_of(opened, named=True), "before": correct_before(opened, found)}, found


@pytest.fixture(scope="module")
def unmoved(tmp_path_factory):
    """A run that begins with a network pretrained on the source and hardly changes it."""
    return trained(tmp_path_factory.mktemp("unmoved"), "backbone.weights=source", "strategy=full", "optimizer.lr=1e-12")


def test_distance_and_accuracy_are_logged_every_epoch(unmoved):
    with (unmoved / "metrics.csv").open() as file:
        rows = [*csv.DictReader(file)]
    distances = [float(row["val/proxy_a_distance"]) for row in rows if row["val/proxy_a_distance"]]
    accuracies = [float(row[name]) for row in rows if row[name := "train/term/dann_discriminator_acc"]]
    assert len(distances) == len(accuracies) == 2
    assert -2 <= distances[0] == distances[1] <= 2
    assert all(0 <= one <= 1 for one in accuracies)


def test_before_is_the_pretrained_network_with_its_own_classifier(unmoved, monkeypatch):
    monkeypatch.setattr(findings, "has_tsne", lambda: False)  # as where it is not installed: it takes seconds
    inspection, found = looked_into(unmoved)
    assert inspection["before"]["model"] == "the model pretrained on the source alone"
    assert inspection["before"]["correct"] == adaptation.right_in(found)  # nothing has moved
    assert inspection["distances"]["before"] == inspection["distances"]["after"]
    section = adaptation.section(unmoved, record.read(unmoved), found, inspection)
    recall, distance = section.tables
    assert sum(int(row[1]) for row in recall.rows) == len(found["label"])
    assert {row[-1] for row in recall.rows} == {"+0.000"}
    assert [row[0] for row in distance.rows] == ["before (pretraining on the source)", "after"]
    drawn = [picture.name for picture in section.pictures]
    assert drawn == ["recall", "domains_over_training", "features_pca_by_domain", "features_pca"]
    assert not section.lines


def test_before_is_the_source_alone_where_the_sweep_has_it(unmoved, tmp_path):
    for name, term in (("a", "term=[]"), ("b", "term=[dann]")):
        copy = shutil.copytree(unmoved, tmp_path / name)
        results = json.loads((copy / "results.json").read_text())
        results |= {"overrides": ["seed=1", term], "terms": ["dann"] if name == "b" else []}
        (copy / "results.json").write_text(json.dumps(results))
    results = record.read(tmp_path / "b")
    assert adaptation.source_only(tmp_path / "b", results) == tmp_path / "a"
    found = target_predictions(tmp_path / "b")
    section = adaptation.section(tmp_path / "b", results, found, {})
    assert "source alone, job a of this sweep" in section.tables[0].caption
    assert adaptation.source_only(tmp_path / "b", {**results, "overrides": ["seed=2", "term=[dann]"]}) is None


@pytest.mark.slow
def test_the_bottlenecks_output_is_shown_where_there_is_one_and_random_classifiers_are_not(tmp_path):
    folder = trained(tmp_path, "strategy=scratch", "head=bottleneck", "head.width=7")
    inspection, found = looked_into(folder)
    assert inspection["bottleneck"]
    assert inspection["before"] is None
    section = adaptation.section(folder, record.read(folder), found, inspection)
    assert "Recall before adaptation is not shown" in section.lines[0]
    assert "bottleneck's output" in section.tables[0].caption


@pytest.mark.slow
def test_the_distance_is_logged_where_it_is_asked_for(tmp_path):
    train_in(tmp_path, *TINY, "strategy=scratch", "report.proxy_a_distance=false")
    assert "proxy_a_distance" not in (tmp_path / "run" / "metrics.csv").read_text()
