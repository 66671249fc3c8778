"""A sweep and a soup that SIGKILL ends anywhere go on with the same command, and end as if nobody had stopped them."""

import os
import signal

import pytest

from tests.proof import kills
from tests.proof.forked import forked
from tests.proof.kills import TINY, at, graft, kill_at, killed_and_finished

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

SWEEP = ["-m", *TINY, "seed=0,1"]
STOPS = [  # a place that is moved to, and for which time
    ("sweep/.graft.json", 1),
    ("/config.yaml", 2),  # where the second job begins
    ("/overrides.yaml", 1),
    ("cache/computed/[0-9a-f]{16}$", 1),  # pretraining is done, and not kept yet
    ("last.ckpt", 1),
    ("best.ckpt", 2),
    ("metrics.csv", 1),
    ("metrics.csv", 3),  # with the test's columns
    ("predictions.parquet", 1),
    ("model/weights.safetensors", 1),
    ("model/model.json", 1),
    ("best_model.json", 1),
    ("results.json", 1),
    ("/DONE", 1),
    ("/DONE", 2),
    ("report/strategies.csv", 1),
    ("report.html", 1),
    ("summary.csv", 1),
    ("summary.md", 1),
]


def test_a_sweep_that_was_killed_between_two_jobs_runs_what_is_missing(app, tmp_path):
    """With a training that takes no time."""
    command = ["-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]

    def killed():
        kill_at(at("config.yaml", 2))
        app(*command)

    with app.capsys.disabled():
        assert forked(killed, tmp_path / "log") == -signal.SIGKILL
    assert len(list(tmp_path.glob("sweep/*/DONE"))) == 1
    finished = app(*command)
    assert finished.code == 0
    assert [cfg.seed for cfg in app.configs] == [1]
    assert "that process is gone" in finished.out
    (row,) = kills.summary(tmp_path)
    assert (row["count"], row["unfinished"], row["seeds"]) == ("2", "0", "0 1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that nobody stopped; it imports what its children need."""
    import graft.report.publish
    import graft.run  # noqa: F401

    root = tmp_path_factory.mktemp("whole")
    assert graft_in(root) == 0, root.with_suffix(".log").read_text()
    return root


def graft_in(root):
    return graft(root, *SWEEP, f"hydra.sweep.dir={root / 'sweep'}")


@pytest.mark.slow
@pytest.mark.parametrize(("place", "number"), STOPS)
def test_a_sweep_that_was_killed_ends_as_the_uninterrupted_one(whole, tmp_path, place, number):
    root = tmp_path / "killed"
    folder = f"hydra.sweep.dir={root / 'sweep'}"
    assert killed_and_finished(root, whole, at(place, number), *SWEEP, folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["config.yaml", "soup.pt", "model/weights.safetensors", "results.json", "DONE"])
def test_a_soup_that_was_killed_ends_as_the_uninterrupted_one(whole, tmp_path, place):
    words = [f"soup={whole / 'sweep'}", "trainer=cpu", "training.threads=1", "logger=csv"]
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    assert graft(tmp_path / "whole", *words, f"hydra.run.dir={tmp_path / 'whole/run'}") == 0
    root = tmp_path / "killed"
    words.append(f"hydra.run.dir={root / 'run'}")
    assert graft(root, *words, kill=at(place)) == -signal.SIGKILL
    assert graft(root, *words) == 0, root.with_suffix(".log").read_text()
    assert kills.unequal_soups(tmp_path / "whole" / "run", root / "run") == []
