"""The verbs beside train.py, on real runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from graft.cli import main as cli
from graft.commands import clean, show
from graft.errors import GraftError

PROJECT = Path(__file__).parents[1]
SMALL = [
    *("experiment=resnet_ft", "backbone=lenet", "strategy=scratch", "data.source.samples=60"),
    *("training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a finished run in it, made by `graft train` in a process of its own."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "graft", "train", *SMALL, f"hydra.run.dir={folder / 'run'}"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_verbs_are_listed_with_what_they_do(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    for verb in ("train", "tune", "soup", "show", "clean"):
        assert f"graft {verb}" in out
    assert cli.main(["trian"]) == 2
    assert "there is no such verb. Verbs: clean, show, soup, train, tune." in capsys.readouterr().err


def test_help_and_a_mistake_import_no_torch():
    code = "import sys; from graft.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    for arguments in ([], ["train", "--help"], ["tune", "optimizer.lr=fast"], ["nothing"]):
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=PROJECT, capture_output=True, text=True)
        assert done.stdout.splitlines()[-1].endswith("False"), (arguments, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["tune", "a=1"], ["a=1", "tune=lr"]),
        (["soup", "logs/x", "b=2"], ["soup=logs/x", "b=2"]),
        (["soup", "soup=logs/x"], ["soup=logs/x"]),
        (["train", "a=1", "-m"], ["a=1", "-m"]),
        (["a=1"], ["a=1"]),  # processes that Lightning starts for distributed training
    ],
)
def test_verbs_become_overrides(monkeypatch, words, overrides):
    found = []
    monkeypatch.setattr(cli, "compose", lambda given: found.append(given) or 0)
    assert cli.main(words) == 0
    assert found == [overrides]


def test_show_prints_what_a_run_found_and_writes_nothing(runs, capsys):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    assert show.main([str(runs / "run")]) == 0
    out = capsys.readouterr().out
    accuracy = json.loads((runs / "run" / "results.json").read_text())["metrics"]["test/target/acc"]
    assert out.startswith("resnet_ft: done\n")
    assert f"{accuracy:.4f}" in out
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_show_names_what_it_cannot_show(runs, tmp_path):
    with pytest.raises(GraftError, match="there is no such folder"):
        show.main([str(tmp_path / "nothing")])
    with pytest.raises(GraftError, match="neither a run nor a sweep"):
        show.main([str(tmp_path)])
    torn = tmp_path / "torn"
    shutil.copytree(runs / "run", torn)
    (torn / "results.json").write_text("{")
    with pytest.raises(GraftError, match=r"results\.json cannot be read"):
        show.main([str(torn)])


def test_a_record_of_a_newer_graft_is_refused_and_an_older_one_is_told(runs, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(runs / "run", folder)
    results = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(results | {"format": 99}))
    with pytest.raises(GraftError, match="of a newer Graft"):
        show.main([str(folder)])
    del results["format"]
    (folder / "results.json").write_text(json.dumps(results))
    assert show.main([str(folder)]) == 0
    assert "(of an older Graft)" in capsys.readouterr().out


def test_clean_shows_first_and_removes_only_what_the_record_names(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "runs")
    checkpoints = tmp_path / "runs" / "run" / "checkpoints"
    (checkpoints / "mine.pt").touch()
    assert clean.main([str(tmp_path / "runs")]) == 0
    assert "last.ckpt" in capsys.readouterr().out
    assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt", "mine.pt"}
    assert clean.main([str(tmp_path / "runs"), "--yes"]) == 0
    assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "mine.pt"}


def test_clean_leaves_a_run_that_is_not_done(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "run" / "DONE").unlink()
    assert clean.main([str(tmp_path / "runs"), "--yes"]) == 0
    assert (tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt").exists()


def test_clean_does_not_follow_a_record_out_of_its_folder(runs, tmp_path, capsys):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "precious.txt").touch()
    record = tmp_path / "runs" / "run" / ".graft.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"files": ["../../precious.txt"]}))
    assert clean.main([str(tmp_path / "runs"), "--yes"]) == 0
    assert (tmp_path / "precious.txt").exists()
    assert "left alone" in capsys.readouterr().err
