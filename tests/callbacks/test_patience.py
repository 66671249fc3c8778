"""Early stopping: some validations after the best, not before the last phase, and the same after a kill."""

import csv

import pytest

from tests.small_run import train_in

SMALL = [
    *("backbone=lenet", "backbone.weights=null", "data.labels_per_class=2", "data.image_size=16", "trainer=cpu"),
    *("training.epochs=12", "scheduler=constant", "logger=csv", "optimizer.lr=1e-12"),
]


def epochs_of(folder):
    with (folder / "metrics.csv").open() as file:
        return sum(bool(row["val/target/acc"]) for row in csv.DictReader(file))


@pytest.fixture
def run(tmp_path):
    def start(*overrides, folder="run"):
        return train_in(tmp_path, *SMALL, *overrides, folder=folder)

    return start


def test_training_ends_where_validation_improves_no_more(run, tmp_path):
    results = run("strategy=scratch", "training.patience=2")
    assert results["selection"]["epoch"] == 0
    assert epochs_of(tmp_path / "run") == 3


def test_a_strategys_earlier_phases_are_trained_whatever_happens(run, tmp_path):
    run("strategy=lp_ft", "training.patience=1")
    assert epochs_of(tmp_path / "run") == 6 + 2  # half of the epochs train the head alone


@pytest.mark.slow
def test_a_run_killed_after_its_last_epoch_trains_no_further(run, tmp_path):
    first = run("strategy=scratch", "training.patience=2")
    again = run("strategy=scratch", "training.patience=2", "resume=true")
    assert epochs_of(tmp_path / "run") == 3
    assert again["metrics"] == first["metrics"]
