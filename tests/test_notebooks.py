"""The notebooks in docs/notebooks run from top to bottom, at a small size, in any folder."""

import json
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[1] / "docs" / "notebooks"
QUICK = {"training.epochs": 1, "training.threads": 1, "trainer": "cpu", "logger": "csv", "baselines": "none"}


def code_of(name):
    """The source of a notebook's code cells."""
    cells = json.loads((PLACE / f"{name}.ipynb").read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def executed(name, values):
    """The names that a notebook leaves; `values` gives it those of its first cell, by a function of what that says."""
    settings, *rest = code_of(name)
    names = {"__name__": "__main__"}
    exec(compile(settings, name, "exec"), names)
    names |= values(names)
    for number, cell in enumerate(rest, start=2):
        exec(compile(cell, f"{name}, code cell {number}", "exec"), names)
    return names


@pytest.mark.parametrize("path", sorted(PLACE.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    for cell in json.loads(path.read_text())["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("form", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_own_photos(tmp_path, monkeypatch, capsys, form):
    monkeypatch.chdir(tmp_path)

    def values(first):
        cache = {"paths.cache_dir": str(tmp_path / "cache"), "data.num_workers": 0}
        return {"WORK": tmp_path / "work", "FORMAT": form, "SETTINGS": {**first["SETTINGS"], **QUICK, **cache}}

    names = executed("own_photos", values)
    out = capsys.readouterr().out
    assert 0 < names["low"] < names["results"]["score"]["value"] <= names["high"] <= 1
    assert names["right"] / len(names["tested"]) == pytest.approx(names["results"]["score"]["value"])
    assert "test photos" in out
    assert "## Results" in out
    assert len(names["found"].nearest[0]) == 3
    assert (tmp_path / "work" / f"photos.{form}").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "work"]


@pytest.mark.slow
def test_reading_results(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = ["training.epochs=1", "pretrain.epochs=1", "data.source.samples=200", "training.threads=1", "trainer=cpu"]

    def values(first):
        words = [word for word in first["WORDS"] if not word.startswith(("training.epochs", "pretrain.epochs"))]
        return {"WORK": tmp_path, "WORDS": [*words, *small, f"paths.cache_dir={tmp_path / 'cache'}", "baselines=none"]}

    names = executed("reading_results", values)
    out = capsys.readouterr().out
    assert sorted(names["summary"].index) == ["full", "scratch"]
    assert (names["summary"]["count"] == 3).all()
    assert "n = 3" in out
    assert names["worst"]["probability"].is_monotonic_increasing
    assert "report.html" in out
