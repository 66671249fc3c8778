"""`graft bench`: what predicting costs, beside scores."""

from pathlib import Path

import pandas
import pytest

from graft.bench import worker
from graft.bench.measure import Costs, Latency
from graft.bench.subjects import Subject
from graft.bench.table import pareto, picture, table
from graft.cli.main import main


def row(name, value, milliseconds, size, metric="acc"):
    score = None if value is None else {"metric": metric, "value": value, "n": 100, "interval": [value - 0.1, value]}
    latency = {(1, 1): Latency(milliseconds, milliseconds / 2, 2 * milliseconds), (1, 32): Latency(9, 8, 10)}
    return Subject(name, Path(name), "ONNX", size, score), Costs(latency, 123.4)


ROWS = [row("large", 0.9, 8, 40), row("small", 0.8, 4, 10), row("worse", 0.7, 5, 10), row("unscored", None, 1, 1)]


def test_the_front_has_those_that_nobody_beats_in_everything():
    assert pareto(ROWS) == [True, True, False, False]
    errors = [row("one", 2.0, 8, 40, "rmse"), row("two", 1.0, 8, 40, "rmse")]
    assert pareto(errors) == [False, True]
    assert pareto([ROWS[0], ROWS[0]]) == [True, True]


def test_the_table_orders_by_latency_and_the_picture_shows_what_has_a_score(tmp_path):
    lines = table(ROWS).as_markdown().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["unscored", "small", "worse", "large"]
    assert "acc 0.8000 (0.700 to 0.800)" in lines[3]
    assert "4.00 (2.00 to 8.00)" in lines[3]
    picture(ROWS, tmp_path / "bench.svg")
    assert (tmp_path / "bench.svg").stat().st_size > 5000


def test_arrays_fit_what_a_network_says_of_its_inputs():
    inputs = [
        {"name": "image", "type": "uint8", "shape": ["batch", 4, 4, 3]},
        {"name": "values", "type": "float32", "shape": ["batch", "length", 3]},
        {"name": "lengths", "type": "int64", "shape": ["batch"]},
    ]
    found = worker.example(inputs, 2)
    assert [(one.dtype.name, one.shape) for one in found.values()] == [
        ("uint8", (2, 4, 4, 3)),
        ("float32", (2, worker.LENGTH, 3)),
        ("int64", (2,)),
    ]
    assert found["lengths"].tolist() == [worker.LENGTH] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "graft bench run=<folder or file>"),
        (["run=x", "rnds=3"], "'rnds=3' is none of its keys"),
        (["run=x", "rounds=0"], "rounds=0: a number of rounds"),
        (["run=x.onnx"], "x.onnx: there is no such file"),
        (["run=x"], "x: there is no such folder"),
    ],
)
def test_mistakes_are_named(arguments, said, capsys):
    assert main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_file_of_another_origin_is_named(tmp_path, capsys):
    (tmp_path / "strange.onnx").write_bytes(b"no network")
    assert main(["bench", f"run={tmp_path / 'strange.onnx'}"]) == 2
    assert "strange.onnx cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_and_its_files_are_measured_in_processes_of_their_own(run, photos, tmp_path, capsys):
    folder = run(*photos, "strategy=scratch")
    files = [tmp_path / "photos.onnx", tmp_path / "photos.pt2"]
    for file, form in zip(files, ("onnx", "torch_export"), strict=True):
        assert main(["export", f"run={folder}", f"format={form}", f"to={file}"]) == 0
    capsys.readouterr()
    places = [f"run={place}" for place in (folder, *files)]
    assert main(["bench", *places, "rounds=2", f"to={tmp_path / 'bench'}"]) == 0
    out = capsys.readouterr().out
    assert all(kind in out for kind in ("PyTorch", "ONNX", "torch.export"))
    rows = pandas.read_csv(tmp_path / "bench" / "bench.csv", thousands=",").set_index("computed by")
    assert rows["network"].to_dict() == {"PyTorch": "train", "ONNX": "photos.onnx", "torch.export": "photos.pt2"}
    assert rows["peak MB"]["ONNX"] < rows["peak MB"]["PyTorch"]  # without torch in memory
    assert sorted(path.name for path in (tmp_path / "bench").iterdir()) == ["bench.csv", "bench.md", "bench.svg"]
