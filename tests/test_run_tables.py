"""Runs on tables, from a file to results: nothing but data and backbone knows that they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lanes import slow

from graft.baselines.plan import ADAPTATIONS, shared_columns
from graft.baselines.representations import Named, SharedColumns
from graft.baselines.scores import scores
from graft.cache.disk import DiskCache
from graft.data.samples import HELD_OUT
from graft.errors import GraftError
from graft.experiment import assemble
from graft.model import predictions
from graft.report import run_page
from tests.small_run import config_in, train_in

TINY = [
    "data=table",
    "data/domain@data.target=table_file",
    "data.target.label=outcome",
    "backbone=mlp",
    "training.epochs=2",
    "training.threads=1",
    "pretrain.epochs=1",
    "trainer=cpu",
    "logger=csv",
]
SOURCE = ["data/domain@data.source=table_file", "data.source.label=outcome", "backbone.weights=source"]


@pytest.fixture
def run(tmp_path):
    for name, columns in {"target": "age,job,height", "source": "age,job,size"}.items():
        lines = [
            f"{i},{'cook' if i % 3 else 'smith'},{(i * 7) % 50},{'yes' if i % 2 else 'no'},{i / 2}" for i in range(80)
        ]
        (tmp_path / f"{name}.csv").write_text(f"{columns},outcome,score\n" + "\n".join(lines))

    def run(*overrides, folder="run"):
        files = [f"data.target.file={tmp_path / 'target.csv'}"]
        if any("data.source" in override for override in overrides):
            files.append(f"data.source.file={tmp_path / 'source.csv'}")
        return train_in(tmp_path, *TINY, *overrides, *files, folder=folder)

    return run


def test_baselines_stand_beside_a_network_from_scratch(run, capsys):
    found = run("strategy=scratch", "data.labels_per_class=5", "baselines=auto")
    assert found["status"] == "done"
    assert found["data"]["target"]["train"] == 10
    assert [*found["baselines"]] == ["majority", "linear_columns", "neighbours_columns", "boosting"]
    for one in found["baselines"].values():
        assert {"val/target/acc", "test/target/acc", "test/target/f1", "test/target/auroc"} <= set(one["metrics"])
        assert one["fitted_on"] == "10 target labels"
    assert found["baselines"]["boosting"]["labels"] == {"target": 10}
    best = max(found["baselines"].values(), key=lambda one: one["metrics"]["val/target/acc"])
    printed = capsys.readouterr().out
    assert f"best baseline by validation: {best['title']} (10 target labels), test acc " in printed
    assert f"{best['metrics']['test/target/acc']:.4f}, " in printed


def test_groups_of_test_samples_are_kept_and_are_what_an_interval_is_over(run, tmp_path):
    run("strategy=scratch", "data.target.split.group=height", "data.target.test_fraction=0.5")
    rows = (tmp_path / "target.csv").read_text().splitlines()
    found = predictions.read(tmp_path / "run" / "predictions.parquet")["target"]
    heights = [rows[int(name.rpartition(" ")[2]) - 1].split(",")[2] for name in found["sample"]]
    assert len({*zip(heights, found["group"], strict=True)}) == len(set(heights)) == len(set(found["group"]))
    assert len(set(heights)) < len(heights)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    alone = run_page.answer(results, {**found, "group": None}).line
    assert run_page.answer(results, found).line != alone  # wider or narrower: another interval


@pytest.mark.slow
def test_a_yes_or_no_task(run):
    found = run("strategy=scratch", "task=binary", "baselines=auto")
    assert all(one["metrics"]["test/target/auroc"] >= 0 for one in found["baselines"].values())


@pytest.mark.slow
def test_numbers_are_predicted_in_their_own_unit(run):
    numbers = ["data.target.label=score", "data.target.label_kind=numbers", "data.target.ignore=[outcome]"]
    more = ["training.epochs=20", "optimizer.lr=0.01", "baselines=auto"]
    found = run("strategy=scratch", "task=regression", *numbers, *more)
    assert found["metrics"]["test/target/mae"] < 8  # the numbers go from 0 to 40
    reached = {key: one["metrics"]["test/target/mae"] for key, one in found["baselines"].items()}
    assert reached["boosting"] < 8
    assert reached["linear_columns"] < 2
    assert reached["majority"] > 8


@pytest.mark.slow
def test_a_source_gives_baselines_of_its_own_rows_which_are_computed_once(run):
    found = run("strategy=full", *SOURCE, "data.labels_per_class=5", "baselines=auto")["baselines"]
    assert found["linear_columns_source_only"]["labels"] == {"source": 56}
    assert found["linear_columns_pooled"]["fitted_on"] == "56 source and 10 target labels"
    assert found["boosting_pooled"]["labels"] == {"source": 56, "target": 10}
    again = run("strategy=scratch", *SOURCE, "data.labels_per_class=5", "baselines=auto", "seed=0", folder="again")
    assert again["baselines"] == found  # with their seconds
    more = ["data.labels_per_class=6", "baselines=[linear,pooled]", "cache.features=false"]
    other = run("strategy=scratch", *SOURCE, *more, folder="other")
    assert [*other["baselines"]] == ["linear_columns", "linear_columns_pooled", "boosting_pooled"]


def test_a_baseline_that_does_not_suit_is_refused_before_training(run):
    with pytest.raises(GraftError, match=r"baselines: source_only needs a source with labels.*baselines=auto"):
        run("strategy=scratch", "baselines=[source_only]")


UNLABELLED = ["data.target_setting=unsupervised", "objective.alpha=1", "selection=source_val", "backbone.weights=null"]


def test_a_target_without_labels_gets_baselines_that_adapt_to_its_inputs(run):
    found = run("strategy=scratch", *SOURCE, *UNLABELLED, "baselines=auto")["baselines"]
    names = [f"{name}_columns" for name in ADAPTATIONS]
    assert [*found] == ["linear_columns_source_only", *names]
    assert {found[name]["fitted_on"] for name in names} == {"56 source labels, 56 target inputs"}
    assert found["aligned_coral_columns"]["title"] == (
        "logistic regression on shared columns, source only, aligned by CORAL"
    )
    priors = found["label_shift_mlls_columns"]["priors"]
    assert priors["source"] == {"no": 0.5, "yes": 0.5}
    assert sum(priors["target"].values()) == pytest.approx(1)


def two_tables(folder, *, column="age", shift=0):
    """Overrides for two tables of one shared column, `shift` larger in the target, and one that each has alone."""
    for name, more in {"source": 0, "target": shift}.items():
        lines = [f"{i + more},{i * i % 31},{'yes' if i > 40 + i % 7 else 'no'}" for i in range(80)]
        (folder / f"{name}.csv").write_text(f"{column.format(name)},only_{name},outcome\n" + "\n".join(lines))
    return [*TINY, *SOURCE, *(f"data.{side}.file={folder / f'{side}.csv'}" for side in ("target", "source"))]


def test_no_label_of_the_target_is_read_to_adapt(tmp_path):
    """Another order of its training labels changes nothing; flipped labels elsewhere turn an accuracy around."""
    experiment = assemble(config_in(tmp_path, *two_tables(tmp_path)))
    data, task = experiment.data, experiment.module.tasks["target"]
    target, cache = data.domains["target"], DiskCache(tmp_path / "none", 0)

    def found(**splits):
        data.domains["target"] = replace(target, **splits)
        return scores(data, task, None, cache, [*ADAPTATIONS])

    def fitted(entry):
        return {key: value for key, value in entry.items() if key not in ("seconds", "metrics")}

    shuffled = target.train.labels.flip(0)
    assert not torch.equal(shuffled, target.train.labels)
    first, permuted = found(), found(train=replace(target.train, labels=shuffled))
    flipped = found(
        **{name: replace(one, labels=1 - one.labels) for name in HELD_OUT if (one := getattr(target, name))}
    )
    assert [*first] == [f"{name}_columns" for name in ADAPTATIONS]
    for key, entry in first.items():
        assert fitted(permuted[key]) == fitted(flipped[key]) == fitted(entry)
        assert permuted[key]["metrics"] == entry["metrics"]
        assert entry["metrics"]["test/target/acc"] > 0.8
        assert flipped[key]["metrics"]["test/target/acc"] == pytest.approx(1 - entry["metrics"]["test/target/acc"])


def test_numbers_of_both_tables_are_in_one_unit(tmp_path):
    data = assemble(config_in(tmp_path, *two_tables(tmp_path, shift=100))).data
    columns = shared_columns(data)
    assert [column.name for column in columns.all] == ["age"]
    rows = {
        domain: SharedColumns(columns).of(Named(domain, "train", data.domains[domain].train))[:, 0]
        for domain in ("source", "target")
    }
    assert rows["target"].mean() == pytest.approx(0, abs=1e-5)
    assert rows["source"].max() < rows["target"].min()  # standardised by their own, both would be around 0


def test_what_adapts_needs_columns_in_common(tmp_path):
    overrides = [*two_tables(tmp_path, column="age_{}"), "baselines=[aligned_ot]"]
    with pytest.raises(GraftError, match="baselines: aligned_ot needs columns that both tables have"):
        assemble(config_in(tmp_path, *overrides))


@pytest.mark.parametrize(
    "strategy", ["full", *slow("frozen", "gradual", "layer_decay", "lora", "adapter", "lp_ft", "bitfit")]
)
@pytest.mark.parametrize("backbone", ["mlp", *slow("ft_transformer")])
def test_strategies_from_another_table(run, strategy, backbone):
    if strategy == "lora":
        pytest.importorskip("peft")
    found = run(f"strategy={strategy}", *SOURCE, f"backbone={backbone}")
    assert found["status"] == "done"
    assert found["weights"]["source"].startswith("source")
    assert found["weights"]["missing"]
    assert all("numeric_height" in name for name in found["weights"]["missing"])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["mlp", "ft_transformer"])
def test_shared_columns_are_the_sources_and_new_ones_are_fresh(run, tmp_path, backbone):
    found = run("strategy=frozen", *SOURCE, f"backbone={backbone}", "pretrain.epochs=2", folder="frozen")
    run("strategy=scratch", *SOURCE, f"backbone={backbone}", "optimizer.lr=1e-12", folder="fresh")
    transferred, fresh = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for name in ("frozen", "fresh")
    )
    learned = torch.load(Path(found["weights"]["folder"]) / "weights.pt", weights_only=True)["backbone"]
    numeric = [name for name in learned if ".numeric." in name and not name.endswith("names")]
    assert numeric
    for name, value in learned.items():
        expected = value.clone()
        if name in numeric:
            assert len(value) == 3  # age, height, which the source lacks, and score
            expected[1] = fresh[f"backbone.{name}"][1]
        assert torch.equal(transferred[f"backbone.{name}"], expected)
    assert any(not torch.equal(fresh[f"backbone.{name}"][0], learned[name][0]) for name in numeric)


@pytest.mark.slow
def test_a_file_of_another_tables_weights_says_what_is_new(run, tmp_path):
    run("strategy=scratch", "data.target.ignore=[height]", folder="first")
    weights = tmp_path / "first" / "checkpoints" / "best.ckpt"
    found = run("strategy=full", f"backbone.weights={weights}", folder="second")
    assert found["weights"]["missing"] == ["columns.numeric_height"]
    assert found["weights"]["matched"] == found["weights"]["total"]


@pytest.mark.slow
def test_both_tables_at_once(run):
    found = run("strategy=full", *SOURCE, "objective.alpha=0.5")
    assert {"test/target/acc", "test/source/acc"} <= set(found["metrics"])


def test_a_table_for_a_network_of_images(run):
    with pytest.raises(GraftError, match=r"backbone\.channels=auto: the target holds table data"):
        run("strategy=scratch", "backbone=lenet")


def test_augmentation_is_refused(run):
    with pytest.raises(GraftError, match=r"data\.augment=light: tables are taken as they are"):
        run("strategy=scratch", "data.augment=light")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(run, tmp_path):
    run("strategy=scratch", folder="first")
    run("strategy=scratch", folder="second")
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("first", "second")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_several_labels_a_row(run, tmp_path):
    columns = ["data.target.label=[likes,buys]", "data.target.label_kind=multilabel", "task=multilabel"]
    for name in ("target", "source"):
        rows = [f"{i % 9},{i % 2},{'yes' if i % 3 else 'no'}" for i in range(80)]
        (tmp_path / f"{name}.csv").write_text("age,likes,buys\n" + "\n".join(rows))
    found = run("strategy=scratch", *columns, "baselines=auto")
    assert found["data"]["target"]["classes"] == ["likes", "buys"]
    assert 0 <= found["metrics"]["test/target/acc"] <= 1
    assert [*found["baselines"]] == ["majority", "linear_columns", "neighbours_columns"]


@pytest.mark.slow
def test_what_became_of_the_rows_is_printed_and_kept(run, capsys):
    found = run("strategy=scratch")
    sentence = "80 rows found, 80 used (56 train, 12 val, 12 test; random, stratified split)"
    assert found["data"]["target"]["report"]["sentence"] == sentence
    assert f"target: {sentence}" in capsys.readouterr().out


@pytest.mark.slow
def test_weights_and_labels_that_are_not_used_are_said_to_be(run, capsys):
    found = run("strategy=scratch", *SOURCE)
    printed = capsys.readouterr().out
    assert "random numbers (backbone.weights=source is not used by this strategy)" in printed
    assert found["ignored_weights"] == "source"
    assert not found["data"]["source"]["trained_on"]
    (row,) = [line for line in printed.splitlines() if line.startswith("source ") and "train" in line]
    assert row.endswith("not used")


def test_the_transfer_between_two_tables_of_ones_own(run):
    sides = [f"data.{side}.label=outcome" for side in ("source", "target")]
    domains = [f"data/domain@data.{side}=table_file" for side in ("source", "target")]
    found = run("experiment=tabular_transfer", *domains, *sides, "training.epochs=1", "pretrain.epochs=1")
    assert found["data"]["target"]["test"] == 48  # the experiment's 0.6
    assert found["weights"]["missing"] == ["columns.numeric_height"]
