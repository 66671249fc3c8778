"""`evaluation=kfold folds=5` on the command line: which jobs it is, what is refused, and real ones to their end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lanes import one_in
from pyarrow import parquet

import graft
from graft.cli.evaluation import EVALUATIONS, written_out
from graft.cli.main import compose
from graft.data.folds import Evaluation
from graft.errors import GraftError

PROJECT = Path(__file__).parents[1]
TABLE = [
    *("data=table", "data/domain@data.target=table_file", "data.target.label=outcome", "data.target.ignore=[site]"),
    *("backbone=mlp", "strategy=scratch", "training.epochs=1", "training.threads=1", "trainer=cpu", "logger=csv"),
    "baselines=none",
]


@pytest.fixture
def table(tmp_path, monkeypatch):
    """TABLE on a file of 60 rows, in folders of the test's own."""
    file = tmp_path / "rows.csv"
    lines = [f"{i % 7},{(i * 5) % 11},{'yes' if i % 2 else 'no'},s{i // 2 % 4}" for i in range(60)]
    file.write_text("age,height,outcome,site\n" + "\n".join(lines) + "\n")
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    return [*TABLE, f"data.target.file={file}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]


def test_the_words_are_those_that_the_data_module_takes():
    assert set(EVALUATIONS) == set(Evaluation.__args__)


def test_folds_are_a_sweep_on_the_command_line():
    assert written_out(["experiment=x", "evaluation=kfold", "folds=3", "seed=0,1"]) == [
        *("-m", "data.evaluation=kfold", "data.folds=3", "data.fold=0,1,2", "experiment=x", "seed=0,1")
    ]
    assert "data.fold=0,1,2,3,4" in written_out(["evaluation=nested"])
    assert written_out(["-m", "evaluation=repeated", "folds=2", "repeats=2"]) == [
        *("-m", "data.evaluation=repeated", "data.split_seed=0,1", "data.folds=2", "data.fold=0,1")
    ]
    assert written_out(["seed=3"]) == ["seed=3"]


@pytest.mark.slow
def test_each_job_gets_its_fold(app):
    assert app("experiment=sequence_digits", "evaluation=kfold", "folds=2", "seeds=2").code == 0
    found = [(cfg.data.evaluation, cfg.data.folds, cfg.data.fold, cfg.seed) for cfg in app.configs]
    assert found == [("kfold", 2, fold, seed) for fold in range(2) for seed in range(2)]


@pytest.mark.slow
def test_an_experiment_that_is_a_sweep_has_folds_too(app):
    found = app(
        *("experiment=compare_strategies", "evaluation=kfold", "folds=2", "strategy=scratch,full", "seed=0"),
        *("optimizer.lr=1e-3", "hydra/launcher=basic"),
    )
    assert (found.code, found.err) == (0, "")
    pairs = sorted((cfg.data.fold, cfg.strategy._target_.rpartition(".")[2]) for cfg in app.configs)
    assert pairs == [(0, "Full"), (0, "Scratch"), (1, "Full"), (1, "Scratch")]
    assert "[4/4]" in found.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evaluation=kfold", "folds=1"], "`folds=1`: how many, from 2 to 1000"),
        (["evaluation=kfod"], "did you mean kfold?"),
        (["folds=5"], "`folds=5` belongs to a cross-validation: evaluation=kfold folds=5"),
        (["evaluation=kfold", "repeats=2"], "evaluation=repeated repeats all folds"),
        (["evaluation=leave_one_group_out", "folds=3"], "a fold is a group"),
        (["evaluation=kfold", "data.fold=1"], "both set data.fold"),
        (["evaluation=kfold", "folds=31"], "every fold needs the class 'no', of which there are only 30 rows"),
        (["evaluation=leave_one_group_out"], "has no groups"),
        (["evaluation=kfold", "data.target.test_file={file}"], "has an official test split"),
    ],
)
def test_a_mistake_is_one_line_before_any_job(table, words, expected, tmp_path, capsys):
    assert compose([*table, *(word.format(file=tmp_path / "rows.csv") for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected in error
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    one_in(
        2,
        [
            (["evaluation=nested", "selection=last"], "each fold chooses a configuration by validation"),
            (["data.folds=3"], "`data.folds=3` without `data.evaluation`"),
            (["data.evaluation=kfold"], "`data.evaluation=kfold` without `data.folds` and `data.fold`"),
            (["data.evaluation=kfold", "data.folds=3", "data.fold=3"], "they count from 0"),
        ],
    ),
)
def test_keys_that_cannot_be_meant_together(table, words, expected, tmp_path, capsys):
    assert compose([*table, *words, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("word", ["evaluation=kfold", "folds=5", "seeds=3"])
def test_a_call_from_python_is_one_job(word):
    with pytest.raises(GraftError, match=rf"`{word}` makes a sweep, and from Python a call is one job"):
        graft.assemble("experiment=tabular_medical", word)


def test_a_table_is_cross_validated_to_one_result(table, tmp_path, capsys):
    assert compose([*table, "evaluation=kfold", "folds=3"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^Cross-validated acc [\d.]+ % .*3 folds", out, flags=re.MULTILINE)
    sweep = tmp_path / "sweep"
    assert len(list(sweep.glob("*/DONE"))) == 3
    found = parquet.read_table(sweep / "predictions.parquet").to_pydict()
    rows = [int(name.rpartition(" ")[2]) for name in found["sample"]]
    assert sorted(rows) == list(range(2, 62))
    for job in sweep.glob("*/predictions.parquet"):
        own = parquet.read_table(job).to_pydict()
        places = [found["sample"].index(name) for name in own["sample"]]
        for name in ("label", "prediction", "probabilities"):
            assert [found[name][place] for place in places] == own[name]


@pytest.mark.slow
def test_each_group_is_a_fold_and_no_more(table, tmp_path, capsys):
    words = ["evaluation=leave_one_group_out", "data.target.split.group=site", "data.target.val_fraction=0.34"]
    assert compose([*table, *words]) == 0
    assert "4 folds" in capsys.readouterr().out
    folds = (tmp_path / "sweep" / "report" / "folds.csv").read_text()
    assert all(f"site s{number}" in folds for number in range(4))


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_folds_that_are_missing(table, tmp_path):
    words = [sys.executable, "train.py", *table, "evaluation=kfold", "folds=3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(words, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (done := list(tmp_path.glob("sweep/*/DONE"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = {file: file.stat().st_mtime_ns for file in done}
    assert kept
    again = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert "Already done, skipped" in again.stdout
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert len(parquet.read_table(tmp_path / "sweep" / "predictions.parquet")) == 60
