"""`graft race` with real Trainers: jobs, record, page, and a test split that no decision sees."""

import json
import sys

import numpy as np
import pytest

from graft.cli import main as cli

SMALL = (
    *("data/domain@data.target=image_arrays", "data.image_size=16", "backbone=lenet", "strategy=scratch"),
    *("data.batch_size=16", "trainer=cpu", "training.epochs=4", "training.threads=1", "baselines=none"),
    *("logger=csv", "callbacks.progress=null", "optimizer.lr=1e-5,3e-3", "budget=1"),
)
SPACE = "axes: {}\nrungs:\n  - {name: short, epochs: 0.5, keep: 1}\n  - {name: whole}\n"


@pytest.fixture
def race(tmp_path, monkeypatch, capsys):
    """Runs a race of two rates on pictures of two kinds; the exit code, its folder and what it prints."""
    random = np.random.default_rng(0)
    content = {}
    for split, size in {"train": 48, "val": 24, "test": 24}.items():
        labels = np.arange(size) % 2
        content[f"{split}_images"] = random.integers(0, 128, (size, 16, 16), dtype=np.uint8)
        content[f"{split}_images"][:, 4:12, 4:12] += (100 * labels[:, None, None]).astype(np.uint8)
        content[f"{split}_labels"] = labels
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    (tmp_path / "space.yaml").write_text(SPACE)

    def run(*overrides, poisoned=False):
        other = {"test_labels": 1 - content["test_labels"]} if poisoned else {}
        file = tmp_path / ("poisoned.npz" if poisoned else "data.npz")
        np.savez(file, **content | other)
        files = (f"data.target.file={file}", f"space={tmp_path / 'space.yaml'}")
        monkeypatch.setattr(sys, "argv", ["train.py"])
        code = cli.main(["race", *SMALL, *files, *overrides])
        folders = sorted(tmp_path.glob("logs/*/races/*"), key=lambda path: path.stat().st_ctime)
        return code, folders[-1] if folders else None, capsys.readouterr()

    return run


def decisions(folder):
    content = json.loads((folder / "race.json").read_text())
    return [
        [[(one["candidate"], one["value"]) for one in rung[word]] for word in ("went_on", "dropped")]
        for rung in content["rungs"]
    ]


def test_a_race_tests_its_winner_alone_and_says_what_it_tried(race, capsys):
    code, folder, shown = race()
    assert code == 0, shown.err
    assert "race, short (2 epochs; trained anew;" in shown.out
    log = json.loads((folder / "race.json").read_text())
    assert log["result"]["candidate"] == "optimizer.lr=0.003"
    assert log["result"]["jobs"] == 4
    results = {file.parent.name: json.loads(file.read_text()) for file in folder.glob("*/results.json")}
    tested = [name for name, one in results.items() if "score" in one]
    assert tested == log["result"]["folders"]
    winner = results[tested[0]]
    assert winner["race"]["candidates"] == 2
    assert any(one.startswith("resume=") for one in winner["overrides"])
    assert winner["selection"]["value"] == log["result"]["value"]
    assert (folder / tested[0] / "model" / "weights.safetensors").is_file()
    assert not list(folder.glob("*/checkpoints/last.ckpt"))
    page = (folder / "report.html").read_text()
    assert "Winner of 2 candidates: optimizer.lr=0.003" in page
    assert "went on" in page
    assert cli.main(["show", str(folder)]) == 0
    assert "race, winner of 2 candidates" in capsys.readouterr().out
    assert cli.main(["show", str(folder / tested[0])]) == 0
    assert "race: chosen by validation among 2 configurations in 4 jobs" in capsys.readouterr().out


@pytest.mark.slow
def test_other_test_labels_change_no_decision(race):
    scores, decided = [], []
    for poisoned in (False, True):
        code, folder, shown = race(poisoned=poisoned)
        assert code == 0, shown.err
        decided.append(decisions(folder))
        winner = json.loads((folder / "race.json").read_text())["result"]["folders"][0]
        scores.append(json.loads((folder / winner / "results.json").read_text())["score"]["value"])
    assert decided[0] == decided[1]
    assert scores[1] == pytest.approx(1 - scores[0])


@pytest.mark.slow
def test_the_same_command_goes_on_where_it_is_and_a_larger_budget_in_the_same_folder(race):
    _, folder, _ = race()
    code, again, shown = race("budget=0.9")
    assert (code, again) == (0, folder)
    assert "[1]" not in shown.out  # no job ran


@pytest.mark.slow
def test_the_winner_learns_from_validation_labels_at_the_end_and_stays_the_winner(race):
    code, folder, shown = race("refit=true")
    assert code == 0, shown.err
    result = json.loads((folder / "race.json").read_text())["result"]
    winner, last = (json.loads((folder / result[key][0] / "results.json").read_text()) for key in ("folders", "refit"))
    assert winner["labels"] == {"training": 20, "choosing": 24}
    assert last["labels"] == {"training": 44, "choosing": 0}
    assert last["selection"]["rule"] == "last"
    assert "race, refit on 44 labels, nothing chosen: test/target/acc" in shown.out
    assert last["race"]["candidates"] == 2
    assert (folder / result["refit"][0] / "model" / "weights.safetensors").is_file()


@pytest.mark.slow
def test_longer_runs_go_on_from_checkpoints_under_a_constant_rate(race):
    code, folder, shown = race("scheduler=constant")
    assert code == 0, shown.err
    assert "1 from their checkpoints" in shown.out
    assert len(list(folder.glob("*/DONE"))) == 4


@pytest.mark.slow
def test_a_candidate_that_is_refused_is_dropped_and_the_race_goes_on(race):
    code, folder, shown = race("strategy=scratch,lp_ft")
    assert code == 0, shown.err
    log = json.loads((folder / "race.json").read_text())
    assert "strategy=scratch" in log["result"]["candidate"]
    refused = [one for one in log["rungs"][0]["dropped"] if "lp_ft" in one["candidate"]]
    assert len(refused) == 2
    assert all(one["value"] is None and one["failure"] for one in refused)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("budget=0",), "`budget=0`: must be a share"),
        (("budget_s=x",), "`budget_s=x`: must be CPU seconds"),
        (("budget=1", "budget_s=9"), "leave one out"),
        (("refit=yes",), "`refit=yes`: must be true"),
        (("hydra/launcher=joblib",), "counts its own process's CPU time"),
    ],
)
def test_a_wrong_race_is_refused_before_anything_is_read(words, message, capsys):
    assert cli.main(["race", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_space_and_lists_of_splits_are_refused(race, tmp_path):
    code, folder, shown = race("data.split_seed=0,1")
    assert code == 2
    assert "what one split validates on another one tests" in shown.err
    assert not list(folder.glob("*/config.yaml"))
    (tmp_path / "space.yaml").unlink()
    code, _, shown = race()
    assert code == 2
    assert "there is no such file; give a YAML file, or one of audio, image" in shown.err


@pytest.mark.parametrize("words", [("-m", "strategy=auto"), ("strategy=auto,full",), ("strategy=full,auto", "-m")])
def test_auto_is_refused_inside_of_a_sweep(words, capsys):
    assert cli.main(["train", *words]) == 2
    assert "in a sweep: it is a race" in capsys.readouterr().err


def test_auto_is_a_race():
    from graft.cli.race_words import as_race, with_auto

    assert with_auto(["experiment=a", "strategy=auto", "budget_s=60"]) == as_race(["experiment=a", "budget_s=60"])
    assert with_auto(["experiment=a"]) == ["experiment=a"]
    words = as_race(["experiment=a", "budget=.4"])
    assert words[:3] == ["-m", "hydra/sweeper=race", "hydra/launcher=stacked"]
    assert [one for one in words if "races/" in one] == [one for one in as_race(["experiment=a"]) if "races/" in one]
