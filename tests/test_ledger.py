"""Ledgers of runs: what they hold, that nothing else depends on them, and what `graft ledger` makes of them."""

import csv
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml
from scipy import stats
from test_config import problems
from test_run import every_epoch_saved  # noqa: F401  fixture

from graft.backbones.base import Backbone
from graft.callbacks.ledger import RULES
from graft.cli.main import main
from graft.errors import GraftError, Interrupted
from graft.runs import ledger
from graft.runs.folder import SweepFolder
from graft.selection.base import SelectionRule
from graft.selection.candidate import Candidate
from graft.tasks.metrics import Mean
from tests.small_run import train_in

TINY = [
    *("data=image_folder", "data/domain@data.target=image_arrays", "data/domain@data.source=image_arrays"),
    *("data.num_workers=0", "data.augment=none", "data.image_size=16", "data.batch_size=16", "data.eval_batch_size=16"),
    *("data.labels_per_class=null", "data.target_setting=unsupervised", "data.epoch=4", "backbone=lenet"),
    *("strategy=scratch", "objective.alpha=1", "optimizer.lr=3e-3", "training.epochs=3", "training.threads=1"),
    *("trainer=cpu", "logger=csv", "callbacks.progress=null", "save.model=none", "allow=[test_ledger]"),
]
SIZES = {"train": 60, "val": 40, "test": 30}


def images(file, seed, contrast, moved=0):
    """Noise with a bright band whose height is the class; labels are moved on by `moved` classes."""
    random, arrays = np.random.default_rng(seed), {}
    for split, size in SIZES.items():
        labels = np.arange(size) % 3
        pixels = random.integers(0, 120, (size, 12, 12))
        for image, label in zip(pixels, labels, strict=True):
            image[4 * label : 4 * label + 4] += contrast
        arrays |= {f"{split}_images": pixels.astype(np.uint8), f"{split}_labels": (labels + moved) % 3}
    np.savez(file, **arrays)
    return file


@pytest.fixture
def run(tmp_path):
    source = images(tmp_path / "source.npz", seed=0, contrast=100)
    target = images(tmp_path / "target.npz", seed=1, contrast=60)

    def run(*overrides, folder="run", target=target):
        files = [f"data.source.file={source}", f"data.target.file={target}"]
        return train_in(tmp_path, *TINY, *files, *overrides, folder=folder), tmp_path / folder

    return run


def weights(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_equal(folder, other, name="last"):
    ours, theirs = weights(folder, name), weights(other, name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


class Look(pl.Callback):
    """Compares what a candidate has with the network's own outputs, in a run."""

    seen, stored = 0, 0

    def on_validation_end(self, trainer, pl_module):
        if "target" not in pl_module.tasks:  # it pretrains
            return
        data, candidate = trainer.datamodule, Candidate(pl_module, trainer)
        inputs, logits = {}, {}
        for domain in ("source", "target"):
            inputs[domain] = torch.cat([batch.inputs for batch in data.plain_batches(domain, "val")])
            with torch.no_grad():
                logits[domain] = pl_module(inputs[domain], domain)
            rows = candidate.rows(domain)
            torch.testing.assert_close(rows.logits, logits[domain].double())
            assert rows.features.shape == (40, 500)
        assert torch.equal(candidate.rows("source").labels, data.domains["source"].val.labels)
        assert candidate.rows("target").labels is None
        assert candidate.rows("source", "train").labels is not None
        partners = torch.arange(39, -1, -1)
        x = inputs["target"]
        with torch.no_grad():
            expected = pl_module(0.7 * x + 0.3 * x.flip(0), "target")
        torch.testing.assert_close(candidate.mixed(partners, 0.7).logits, expected.double(), rtol=1e-4, atol=1e-5)
        Look.seen, Look.stored = Look.seen + 1, len(data.stored)


class FromFirstStep(pl.Callback):
    """Forgets what was counted before the first step of a fit."""

    passes = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if "target" in pl_module.tasks and trainer.global_step == 0:
            FromFirstStep.passes = 0


class UnsureRows(Mean):
    higher_is_better = False

    def update(self, domain, features, logits):
        super().update((logits.softmax(dim=-1).amax(dim=-1) < 0.9).sum(), len(logits))


class Own(SelectionRule):
    """A rule of a user's, with a metric of its own."""

    name, domains, uses_target_labels = "own", ("target",), False

    def metric(self):
        return UnsureRows()


def test_a_ledger_has_every_rules_score_and_changes_nothing(run):
    look = "+callbacks.look={_target_: test_ledger.Look}"
    Look.seen = 0
    with_it, folder = run("selection=snd", "save.ledger=3", look)
    without, plain = run("selection=snd", folder="plain")
    assert Look.seen == 3
    assert with_it["selection"] == without["selection"]
    assert with_it["metrics"] == without["metrics"]
    assert (folder / "metrics.csv").read_text() == (plain / "metrics.csv").read_text()
    assert_equal(folder, plain)
    assert_equal(folder, plain, "best")
    assert not (plain / "ledger.json").exists()

    kept = ledger.read(folder)
    assert (kept["rule"], kept["terms"], kept["metric"], kept["left_out"]) == ("snd", [], "acc", {})
    assert [one["epoch"] for one in kept["candidates"]] == [0, 1, 2]
    assert set(kept["directions"]) == {rule.name for rule in RULES}
    assert [name for name, higher in kept["directions"].items() if not higher] == ["entropy", "dev"]
    with (folder / "metrics.csv").open() as file:
        logged = {row["epoch"]: row for row in csv.DictReader(file) if row["val/target/acc"]}
    for one in kept["candidates"]:
        row = logged[str(one["epoch"])]
        assert all(math.isfinite(value) for value in [*one["scores"].values(), *one["estimates"].values()])
        assert one["scores"]["snd"] == pytest.approx(float(row["selection/snd"]), rel=1e-6)
        assert one["scores"]["source_val"] == pytest.approx(float(row["val/source/acc"]))
        assert one["oracle"]["val"] == pytest.approx(float(row["val/target/acc"]))
    chosen = kept["candidates"][with_it["selection"]["epoch"]]
    assert chosen["oracle"]["test"] == pytest.approx(with_it["metrics"]["test/target/acc"])


@pytest.mark.slow
def test_labels_of_an_unlabelled_target_change_no_weight_and_no_pick(run, tmp_path):
    options = ["selection=information_maximisation", "save.ledger=3"]
    found, folder = run(*options)
    (tmp_path / "poison").mkdir()
    poison = images(tmp_path / "poison" / "target.npz", seed=1, contrast=60, moved=1)
    poisoned, other = run(*options, folder="poisoned", target=poison)
    for name in ("last", "best"):
        assert_equal(folder, other, name)
    assert found["selection"] == poisoned["selection"]
    ours, theirs = ledger.read(folder), ledger.read(other)
    for one, two in zip(ours["candidates"], theirs["candidates"], strict=True):
        assert one["scores"] == two["scores"]
        assert one["estimates"] == two["estimates"]
        assert one["oracle"] != two["oracle"]
    assert found["metrics"]["test/target/acc"] != poisoned["metrics"]["test/target/acc"]
    assert found["metrics"]["test/source/acc"] == poisoned["metrics"]["test/source/acc"]


@pytest.mark.slow
def test_stored_features_of_a_frozen_backbone_stand_for_inputs(run):
    options = ["strategy=frozen", "backbone.weights=source", "pretrain.epochs=1", "data.epoch=source", "save.ledger=1"]
    _, folder = run("selection=mixval", *options, "+callbacks.look={_target_: test_ledger.Look}")
    assert Look.stored == 4  # training and validation of the source, validation and test of the target
    assert all(map(math.isfinite, ledger.read(folder)["candidates"][0]["scores"].values()))


@pytest.mark.slow
def test_a_later_run_on_a_frozen_backbone_looks_at_no_input(run, monkeypatch):
    forward = Backbone.forward

    def counted(backbone, x):
        FromFirstStep.passes += 1
        return forward(backbone, x)

    monkeypatch.setattr(Backbone, "forward", counted)
    options = ["selection=mixval", "strategy=frozen", "backbone.weights=source", "pretrain.epochs=1"]
    options += ["head=bottleneck", "data.epoch=source", "save.ledger=2", "term=[coral]"]
    run(*options, "seed=1")
    _, folder = run(*options, "cache.features=false", folder="uncached")
    assert FromFirstStep.passes > 0
    _, stored = run(*options, "+callbacks.passes={_target_: test_ledger.FromFirstStep}", folder="stored")
    assert FromFirstStep.passes == 0
    for one, two in zip(ledger.read(folder)["candidates"], ledger.read(stored)["candidates"], strict=True):
        assert one["scores"] == pytest.approx(two["scores"], rel=1e-3)
        assert one["oracle"] == pytest.approx(two["oracle"])


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch_saved")
def test_a_resumed_run_has_the_ledger_of_the_uninterrupted_one(run):
    options = ["selection=dev", "save.ledger=3"]
    _, whole = run(*options, folder="whole")
    with pytest.raises(Interrupted):
        run(*options, "allow=[test_run]", "+callbacks.stop={_target_: test_run.StopAt, epoch: 2}", folder="stopped")
    assert [one["epoch"] for one in ledger.read(whole.parent / "stopped")["candidates"]] == [0, 1]
    _, stopped = run(*options, "resume=true", folder="stopped")
    ours, theirs = ledger.read(stopped), ledger.read(whole)
    assert ours.pop("seconds") > 0
    theirs.pop("seconds")
    assert ours == theirs


@pytest.mark.slow
def test_a_run_without_any_label_has_scores_of_the_source_too(run):
    _, source = run("save.model=always", "training.epochs=1", folder="source")
    own = ["objective.alpha=null", "strategy=fixed_head", "term=[information_maximisation]", "training.epochs=1"]
    _, folder = run("save.ledger=1", *own, f"head.weights={source}", f"backbone.weights={source}", folder="adapted")
    (candidate,) = ledger.read(folder)["candidates"]
    assert candidate["scores"].keys() == {rule.name for rule in RULES}


def test_a_rule_of_ones_own_is_in(run):
    _, folder = run("selection=entropy", "selection._target_=test_ledger.Own", "save.ledger=1", "averaging=ema")
    assert math.isfinite(ledger.read(folder)["candidates"][0]["scores"]["own"])


@pytest.mark.slow
def test_a_sweep_of_the_command_line_has_a_ledger(tmp_path, capsys):
    root = Path(__file__).parents[1]
    small = ["data.source.samples=300", "data.epoch=3", "data.batch_size=8", "data.image_size=16", "baselines=none"]
    options = [*TINY[TINY.index("data.labels_per_class=null") :], *small, "selection=entropy", "save.ledger=2"]
    sweep = ["term=[],[mcd]", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "GRAFT_ROOT": str(tmp_path)}
    kept = [one for one in options if not one.startswith("allow")]
    command = [sys.executable, str(root / "train.py"), "-m", *kept, *sweep]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert main(["ledger", str(tmp_path / "sweep")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["rule", "source_only", "mcd", "mean"] in lines
    assert [line[:2] for line in lines if line[:1] == ["entropy"]] == [["entropy", "(named)"]]
    with (tmp_path / "sweep" / "ledger.csv").open() as file:
        found = {(row["method"], row["rule"]) for row in csv.DictReader(file) if row["regret"]}
    rules = {rule.name for rule in RULES} | {"random", "oracle"}
    assert found == {(method, rule) for method in ("source_only", "mcd") for rule in rules}


@pytest.mark.parametrize(
    ("epochs", "every", "number", "expected"),
    [
        (5, 1, 5, [0, 1, 2, 3, 4]),
        (10, 1, 5, [1, 3, 5, 7, 9]),
        (7, 1, 3, [2, 4, 6]),
        (6, 2, 5, [1, 3, 5]),
        (4, 9, 2, [3]),
    ],
)
def test_candidates_are_evenly_spaced_validated_epochs(epochs, every, number, expected):
    assert ledger.candidate_epochs(epochs, every, number) == expected


# What is read of them


def job(sweep, name, overrides, seed, candidates, terms=(), **changes):
    """A finished job's folder; candidates are (epoch, scores by rule, oracle's validation, test)."""
    folder = sweep / name
    folder.mkdir(parents=True)
    side = {"train": 60, "val": 40, "test": 30, "trained_on": False}
    results = {
        "format": 1,
        "status": "done",
        "score": {"metric": "test/target/acc", "value": 0.5, "higher_is_better": True},
        "data": {"target": {"name": "digits", **side}, "source": {"name": "glyphs", **side}},
        "seeds": {"train": seed, "split": 0},
    }
    kept = {
        "format": 1,
        "terms": list(terms),
        "rule": "snd",
        "directions": {"snd": True, "entropy": False, "last": True},
        "left_out": {},
        "metric": "acc",
        "higher_is_better": True,
        "seconds": 1.0,
        "candidates": [
            {
                "epoch": epoch,
                "step": epoch,
                "scores": {**scores, "last": float(epoch)},
                "estimates": {"max_confidence": 0.5, "negative_entropy": 0.25},
                "oracle": {"val": val, "test": test},
            }
            for epoch, scores, val, test in candidates
        ],
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "ledger.json").write_text(json.dumps(kept | changes))
    (folder / "overrides.yaml").write_text(yaml.safe_dump([*overrides, f"seed={seed}"]))
    (folder / "DONE").touch()


TESTS = {  # by method, seed and rate, of epochs 0 and 1: SND, entropy, target validation, test
    ("source_only", 0, "0.1"): [(1.0, 0.9, 0.6, 0.50), (2.0, 0.8, 0.5, 0.55)],
    ("source_only", 0, "1"): [(3.0, None, 0.4, 0.40), (0.0, 0.7, 0.7, 0.70)],
    ("source_only", 1, "0.1"): [(5.0, 0.9, 0.6, 0.60), (2.0, 0.8, 0.5, 0.55)],
    ("source_only", 1, "1"): [(3.0, 0.6, 0.4, 0.45), (0.0, 0.7, 0.7, 0.50)],
    ("source_only", 2, "0.1"): [(1.0, 0.5, 0.6, 0.60), (2.0, 0.8, 0.5, 0.55)],
    ("source_only", 2, "1"): [(3.0, 0.6, 0.9, 0.45), (0.0, 0.7, 0.7, 0.50)],
    ("mcd", 0, "0.1"): [(1.0, 0.9, 0.6, 0.70), (2.0, 0.8, 0.5, 0.75)],
    ("mcd", 1, "0.1"): [(1.0, 0.9, 0.6, 0.80), (2.0, 0.8, 0.5, 0.75)],
    ("mcd", 2, "0.1"): [(1.0, 0.9, 0.6, 0.90), (0.5, 0.8, 0.5, 0.75)],
}


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "sweep").mkdir()
    with SweepFolder(tmp_path / "sweep").owned(adopt=False):
        pass  # claimed
    for number, ((method, seed, rate), found) in enumerate(TESTS.items()):
        terms = [] if method == "source_only" else [method]
        candidates = [
            (epoch, {"snd": snd, "entropy": entropy}, val, test)
            for epoch, (snd, entropy, val, test) in enumerate(found)
        ]
        overrides = [f"term=[{','.join(terms)}]", f"optimizer.lr={rate}"]
        overrides += [f"term.{name}.weight=2" for name in terms]
        job(tmp_path / "sweep", str(number), overrides, seed, candidates, terms)
    return tmp_path / "sweep"


def regrets(method, place, best):
    """By seed, the oracle's test score minus that of the candidate with the best value at a place."""
    found = []
    for seed in (0, 1, 2):
        rows = [row for key, rows in TESTS.items() if key[:2] == (method, seed) for row in rows]
        chosen = best([row for row in rows if row[place] is not None], key=lambda row: row[place])
        found.append(100 * (max(rows, key=lambda row: row[2])[3] - chosen[3]))
    return found


def test_the_verb_shows_picks_and_regrets_with_paired_intervals(sweep, capsys):
    assert main(["ledger", str(sweep)]) == 0
    printed = capsys.readouterr().out
    lines = {line.split("  ")[0].strip(): line for line in printed[printed.index("Regret,") :].splitlines()}
    by_method = {
        "snd (named)": [regrets(method, 0, max) for method in ("source_only", "mcd")],
        "entropy": [regrets(method, 1, min) for method in ("source_only", "mcd")],
    }
    for rule, found in by_method.items():
        for values in (*found, [statistics.fmean(pair) for pair in zip(*found, strict=True)]):
            half = stats.t.ppf(0.975, 2) * stats.sem(values)
            assert f"{statistics.fmean(values):.1f} ± {half:.1f}" in lines[rule]
    assert lines["snd (named)"] == next(line for line in printed.splitlines() if line.startswith("snd (named)"))
    order = [line.split()[0] for line in printed.split("Regret,")[1].splitlines()[2:7]]
    assert order == ["rule", "snd", "entropy", "last", "random"]
    assert "(optimizer.lr @ epoch, regret)" in printed, "a key that one method alone has was not tuned"
    picks = [line for line in printed.split("Regret,")[0].splitlines() if line.startswith("source_only")]
    assert picks[0].split()[3:] == [*("1", "@", "1,", "30.0"), *("0.1", "@", "1,", "-10.0"), *("1", "@", "1,", "0.0")]
    assert picks[-1].split()[1:4] == ["oracle:", "target", "labels"]
    header = next(line for line in printed.splitlines() if line.startswith("direction"))
    assert header.split("  ")[-1].strip() == "oracle: test acc"


def test_what_chooses_nothing_has_its_expected_regret(sweep, capsys):
    main(["ledger", str(sweep)])
    with (sweep / "ledger.csv").open() as file:
        rows = list(csv.DictReader(file))
    one = {row["rule"]: row for row in rows if (row["method"], row["seed"]) == ("source_only", "0")}
    assert float(one["random"]["regret"]) == pytest.approx(0.70 - statistics.fmean([0.5, 0.55, 0.4, 0.7]))
    assert float(one["last"]["regret"]) == pytest.approx(0.70 - statistics.fmean([0.55, 0.7]))
    assert (one["snd"]["hyperparameters"], one["snd"]["epoch"], one["snd"]["named"]) == ("1", "0", "True")
    assert [row["rule"] for row in rows if row["uses_target_labels"] == "True"] == ["oracle"] * 6
    assert float(one["oracle"]["regret"]) == 0.0
    assert one["snd"]["atc_negative_entropy"] == "0.25"
    text, tex = (sweep / "ledger.md").read_text(), (sweep / "ledger.tex").read_text()
    assert "| over source_only |" in text
    assert r"source\_only" in tex
    assert "\\textbf" not in tex
    assert main(["ledger", str(sweep)]) == 0  # again


def test_several_folders_are_read_as_one(sweep, tmp_path, capsys):
    assert main(["ledger", str(sweep), str(tmp_path)]) == 2
    assert "to=<folder>" in capsys.readouterr().err
    job(tmp_path / "more", "0", ["term=[]", "optimizer.lr=0.1"], 7, [(0, {"snd": 1.0, "entropy": 1.0}, 0.5, 0.5)])
    (tmp_path / "more" / "0" / "ledger.json").unlink()
    out = tmp_path / "out"
    assert main(["ledger", str(sweep), str(tmp_path / "more"), f"to={out}"]) == 0
    assert "left out: 1 runs without a ledger" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"ledger.csv", "ledger.md", "ledger.tex"}
    (out / "ledger.md").write_text("mine")
    assert main(["ledger", str(sweep), f"to={out}"]) == 2
    assert "is in the way" in capsys.readouterr().err


def test_what_cannot_be_read_is_one_message(sweep, tmp_path, capsys):
    for words, message in (
        ([], "graft ledger <folder"),
        ([str(tmp_path / "none")], "there is no such folder"),
        ([str(tmp_path / "empty")], "save.ledger=5"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert main(["ledger", *words]) == 2
        assert message in capsys.readouterr().err
    (sweep / "0" / "ledger.json").write_text("{}")
    assert main(["ledger", str(sweep)]) == 2
    assert "ledger.json cannot be read: it is no ledger of a run" in capsys.readouterr().err


def test_directions_and_splits_are_kept_apart(tmp_path, capsys):
    for split in (0, 1, 2):
        found = [(0, {"snd": 1.0, "entropy": 1.0}, 0.5, 0.5), (1, {"snd": 0.0, "entropy": 2.0}, 0.6, 0.6 + split / 10)]
        name = f"{split}"
        job(tmp_path / "sweep", name, ["optimizer.lr=0.1", f"data.split_seed={split}"], 0, found)
        results = json.loads((tmp_path / "sweep" / name / "results.json").read_text())
        results["seeds"]["split"] = split
        (tmp_path / "sweep" / name / "results.json").write_text(json.dumps(results))
    main(["ledger", str(tmp_path / "sweep")])
    values = [10.0, 20.0, 30.0]
    spread = statistics.stdev(values) * math.sqrt(1 / 3 + 30 / 100)  # Nadeau and Bengio's
    half = stats.t.ppf(0.975, 2) * spread
    assert f"20.0 ± {half:.1f}" in capsys.readouterr().out


def test_a_direction_is_its_domains_and_what_tells_it_from_others_of_their_names(tmp_path, capsys):
    found = [(0, {"snd": 1.0, "entropy": 1.0}, 0.5, 0.5), (1, {"snd": 0.0, "entropy": 2.0}, 0.6, 0.6)]
    for index, (size, target) in enumerate([(16, "a"), (32, "a"), (16, "b")]):
        folder = tmp_path / f"{index}" / "0"
        job(folder.parent, "0", [f"data.image_size={size}", f"data.target.file=data/{target}.csv"], 0, found)
        results = json.loads((folder / "results.json").read_text())
        results["data"]["target"]["name"] = target
        (folder / "results.json").write_text(json.dumps(results))
    main(["ledger", *(str(tmp_path / f"{index}") for index in range(2)), f"to={tmp_path / 'x'}"])
    assert "a data.image_size=16 (" in capsys.readouterr().out
    main(["ledger", *(str(tmp_path / f"{index}") for index in (0, 2)), f"to={tmp_path / 'y'}"])
    out = capsys.readouterr().out
    assert "-> a (" in out
    assert "-> b (" in out


@pytest.mark.slow
def test_a_ledger_needs_a_source_and_classes_and_no_patience():
    own = ["data.source=null", "objective.alpha=0", "training.patience=3", "task=regression"]
    found = [line for line in problems("save.ledger=5", *own) if line.startswith("`save.ledger=5`")]
    assert [line.split(":")[0] for line in found] == [
        "`save.ledger=5` without source data",
        "`save.ledger=5` with `task=regression`",
        "`save.ledger=5` with `training.patience=3`",
    ]
    assert any("with `objective.alpha=0`: its rules judge" in line for line in problems("save.ledger=5"))


def test_rules_refuse_what_they_cannot_judge(run, tmp_path):
    four = images(tmp_path / "four.npz", seed=1, contrast=60)
    names = "data.target.class_names=[a,b,c]"
    for rule in ("dev", "circular"):
        with pytest.raises(GraftError, match=f"selection={rule}: it compares predicted classes of the target with"):
            run(
                f"selection={rule}",
                names,
                "head.sharing=separate",
                "objective.alpha=0.5",
                "data.target_setting=supervised",
                target=four,
            )
