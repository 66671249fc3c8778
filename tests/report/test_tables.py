import io

import pytest

from graft.report.tables import print_results, print_setup, print_suggestions, tuning_lines, weights_line

SETUP = {
    "precision": "32-true",
    "threads": 2,
    "data": {
        "target": {
            "name": "digits",
            "classes": list("0123456789"),
            "train": 100,
            "val": 297,
            "test": 500,
            "labels": {"train": 100, "val": 297},
            "notes": ["3 classes have fewer than 10"],
            "labels_per_class": 10,
            "pool": 1000,
        },
        "source": {
            "name": "glyphs",
            "classes": None,
            "train": 6400,
            "val": 800,
            "test": 800,
            "labels": {"train": 0, "val": 800},
            "notes": [],
        },
    },
    "weights": {
        "source": "pip:some-package",
        "matched": 60,
        "total": 62,
        "missing": ["network.fc.weight", "network.fc.bias"],
        "unexpected": [f"extra.{i}" for i in range(9)],
        "adapted": [],
    },
    "parameters": {
        "total": 11_181_642,
        "trainable": 5130,
        "groups": [
            {"name": "backbone/layer4", "parameters": 11_176_512, "trainable": 0, "lr": None},
            {"name": "head/shared", "parameters": 5130, "trainable": 5130, "lr": 1e-3},
        ],
    },
    "phases": [
        {"epochs": [0, 4], "stages": [], "trainable": 5130, "lr_factor": 1.0},
        {"epochs": [5, 9], "stages": ["layer3", "layer4"], "trainable": 9000, "lr_factor": 0.3},
    ],
    "settings": {"data.epoch": 50},
    "note": "lora adapts layer4.*.conv1 (2)",
}
RESULTS = {
    "metrics": {
        "val/target/acc": 0.8,
        "test/target/acc": 0.8675,
        "test/target/loss": 0.5,
        "test/source/acc": 0.9,
        "test/source/auroc": None,
        "forgetting": 0.0625,
    },
    "selection": {"rule": "target_val", "monitor": "val/target/acc", "value": 0.8, "epoch": 11, "oracle": False},
    "time": {"total_s": 50.0, "pretrain_s": 0.0, "fit_s": 41.25, "test_s": 1.0},
    "samples_per_s": 1234.5,
    "peak_memory_mb": 789.4,
}


def test_setup_shows_data_weights_and_rates(capsys):
    print_setup(SETUP)
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    lines = [" ".join(row) for row in rows]
    assert "target digits 10 100 297 500 100 train + 297 val 10 a class of 1,000" in lines
    assert "source glyphs 6,400 800 800 0 train + 800 val unlabelled" in lines
    assert "target: 3 classes have fewer than 10" in out.splitlines()
    assert "60 of 62 tensors matched" in out
    assert "2 left random: network.fc.weight, network.fc.bias" in out
    assert "9 not used: extra.0, extra.1, extra.2, extra.3, extra.4 and 4 more" in out
    assert ["backbone/layer4", "11,176,512", "0"] in rows
    assert ["head/shared", "5,130", "5,130", "0.001"] in rows
    assert "lora adapts layer4.*.conv1 (2)" in out.splitlines()
    assert "1 1 to 5 head only 5,130 x 1" in lines
    assert "2 6 to 10 layer3 to layer4 9,000 x 0.3" in lines
    assert "set by the strategy: data.epoch=50" in lines
    assert "trained: 5,130 of 11,181,642 parameters (0.0459 %)" in out


def test_no_weights_are_said_to_be_none():
    assert "random" in weights_line(None)


def test_results_end_with_the_folder(capsys, tmp_path):
    folder = tmp_path / ("a very long name " * 20)
    print_results(RESULTS, folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(folder), "whole, on one line"
    rows = [line.split() for line in lines]
    assert ["test", "target", "source"] in rows
    assert ["acc", "0.8675", "0.9000"] in rows
    assert ["forgetting", "0.0625"] in rows
    assert "checkpoint: target_val, epoch 12, the highest val/target/acc 0.8000" in lines
    assert "cost: fit 41.2 s, test 1.0 s, 1,234 samples/s, peak memory 789 MiB" in lines
    assert not any("0.8000" in line and "acc" in line and "checkpoint" not in line for line in lines), (
        "only test metrics"
    )


def test_forgetting_is_in_the_source_column(capsys, tmp_path):
    print_results(RESULTS, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    acc = next(line for line in lines if line.startswith("acc"))
    forgetting = next(line for line in lines if line.startswith("forgetting"))
    assert forgetting.index("0.0625") == acc.index("0.9000")


def test_a_score_that_used_hidden_labels_is_marked(capsys, tmp_path):
    print_results(RESULTS | {"selection": RESULTS["selection"] | {"oracle": True}}, tmp_path)
    assert "oracle" in capsys.readouterr().out


def test_what_wise_ft_and_a_soup_chose_among_is_shown(capsys, tmp_path):
    tried = [{"alpha": 0, "value": 0.5}, {"alpha": 0.25, "value": 0.75}]
    print_results(RESULTS | {"wise_ft": {"monitor": "val/target/acc", "alpha": 0.25, "tried": tried}}, tmp_path)
    line = "wise_ft: alpha 0.25 of pretrained (0) to tuned (1), val/target/acc 0.5000 at 0, 0.7500 at 0.25"
    assert line in capsys.readouterr().out.splitlines()

    soup = {"monitor": "val/target/acc", "chosen": "greedy", "greedy": 0.9, "uniform": 0.8, "members": ["a seed=0"]}
    soup |= {"ingredients": {"a seed=0": 0.9, "b seed=1": 0.7}, "label_subsets": 2}
    print_results(RESULTS | {"soup": soup}, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["greedy", "0.9000", "1"] in rows
    assert ["uniform", "0.8000"] in rows
    assert ["a", "seed=0", "0.9000", "x"] in rows
    assert ["b", "seed=1", "0.7000"] in rows
    assert "soup: greedy, the mean of 1 of 2 networks" in lines
    assert any(line.startswith("labels: its jobs drew 2 different subsets") for line in lines)


def test_estimated_priors_that_differ_are_printed(capsys, tmp_path):
    entry = {"title": "label shift", "fitted_on": "9 labels", "metrics": {}, "note": "prior mismatch: 0.5"}
    print_results(RESULTS | {"baselines": {"label_shift_mlls_columns": entry}}, tmp_path)
    assert "label shift: prior mismatch: 0.5" in capsys.readouterr().out.splitlines()


def test_results_of_a_run_that_measured_little(capsys, tmp_path):
    print_results({"metrics": {"test/target/mae": 1.5}, "selection": None, "time": {}}, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert ["mae", "1.5000"] in [line.split() for line in lines]
    assert lines[-1] == str(tmp_path)


def test_class_names_are_no_markup(capsys):
    setup = SETUP | {"data": {"target": SETUP["data"]["target"] | {"name": "[red]birds[/red] :smile:"}}}
    print_setup(setup)
    assert "[red]birds[/red] :smile:" in capsys.readouterr().out


@pytest.mark.parametrize("terminal", [False, True])
def test_plain_text_away_from_a_terminal(monkeypatch, tmp_path, terminal):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    stream = Stream()
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    print_setup(SETUP)
    print_results(RESULTS, tmp_path)
    assert ("\x1b[" in stream.getvalue()) == terminal
    assert stream.getvalue().isascii() == (not terminal)


def test_what_was_looked_for_has_a_line():
    found = {"value": 0.0012, "suggestion": "valley", "phase": 2}
    summary = SETUP | {"tuning": {"batch_size": {"value": 64, "limit": 100}, "lr": found}}
    assert tuning_lines(summary) == [
        "batch size: 64, largest power of two that fits, up to 100",
        "learning rate: 0.0012, valley of the range test in phase 2, see lr_find.png",
    ]
    resumed = {"batch_size": {"value": 64, "resumed": True}, "lr": {"value": 0.0012, "resumed": True}}
    assert tuning_lines(SETUP | {"tuning": resumed}) == [
        "batch size: 64, as in the checkpoint",
        "learning rate: 0.0012, as in the checkpoint",
    ]


def test_suggestions_come_with_the_command_that_trains_with_them(capsys, tmp_path):
    found = {"value": 0.0012, "suggestion": "valley", "suggestions": {"valley": 0.0012, "steep": 0.1}}
    overrides = ["experiment=resnet_ft", "tune=lr", "optimizer.lr=1e-3", "notes=two words"]
    print_suggestions({"tuning": {"lr": found}, "overrides": overrides}, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if "auto" in line] == [["valley", "0.0012"]]
    assert "train with it: python train.py experiment=resnet_ft 'notes=two words' optimizer.lr=0.0012" in lines
    assert lines[-1] == str(tmp_path)
