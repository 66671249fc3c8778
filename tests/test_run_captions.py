"""Whole runs on pictures with captions: pretraining of two towers, and one projection beside what is frozen."""

import json

import pytest
import torch

import graft
from graft.pretrain import cache_key
from tests.captioned import COLOURS, options, write_pairs
from tests.conftest import tone
from tests.processes import ONE, TWO, check_same, fitted
from tests.small_run import config_in, train_in

ZERO_SHOT = [
    *("backbone.weights=source", "pretrain=clip", "pretrain.term.clip.text=caption", "strategy=zero_shot"),
    *("pretrain.batch_size=16", "pretrain.optimizer.lr=5e-3", "pretrain.epochs=15"),
]
LIT = [
    *("term=[clip]", "term.clip.domain=source", "term.clip.text=caption", "objective.alpha=null", "selection=last"),
    *("strategy=scratch", "data.target_setting=unsupervised", "data.epoch=source", "backbone.dropout=0"),
]


def test_towers_of_pairs_without_labels_tell_classes_by_their_names(tmp_path):
    overrides = [*options(tmp_path), *ZERO_SHOT]
    results = train_in(tmp_path, *overrides)
    assert results["data"]["source"]["labels"] == {"train": 0, "val": 0}
    assert results["weights"]["pretraining"]["labels"] == 0
    assert results["metrics"]["test/target/acc"] > 0.6  # chance is a third
    assert not any(name.startswith("test/source/acc") for name in results["metrics"])
    found = results["retrieval"]["source"]
    assert found == json.loads((tmp_path / "run" / "results.json").read_text())["retrieval"]["source"]
    assert results["metrics"]["test/source/text_recall_at_1"] == found["text"]["recall"]["1"]
    assert found["text"]["recall"]["1"] > 2 * found["text"]["chance"]["1"]
    # By the finished model, sample by sample
    model = graft.load_run(tmp_path / "run")
    assert set(model.classes) == {*COLOURS}
    learned = torch.load(next(tmp_path.glob("computed/*/weights.pt")), weights_only=True)["head"]
    torch.testing.assert_close(model.head.state_dict(), learned, rtol=0, atol=0)


def test_other_captions_are_another_pretraining(tmp_path):
    config = config_in(tmp_path, *options(tmp_path), *ZERO_SHOT)
    names = []
    for caption in ("a dark blue", "one deep blue"):
        file = tmp_path / "pairs.csv"
        file.write_text(file.read_text().replace("a dark blue", caption))
        experiment = graft.assemble(config)
        names.append(cache_key(experiment.config, experiment.data, experiment.module.backbone))
    assert names[0] != names[1]


def test_copies_of_a_picture_are_one_sample_with_several_texts(tmp_path):
    overrides = [*options(tmp_path), *LIT, "training.epochs=1", "data.source.test_fraction=0.5"]
    results = train_in(tmp_path, *overrides)
    rows = write_pairs(tmp_path).read_text().splitlines()[1:]
    pictures = {row.split(",")[0] for row in rows}
    assert len(pictures) < len(rows)
    found, tested = results["retrieval"]["source"], results["data"]["source"]["test"]
    assert found["samples"] < tested
    assert found["text"]["chance"]["1"] > 1 / found["texts"]


@pytest.mark.slow
def test_recordings_with_texts_teach_what_words_mean(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for name, column in (("pairs", "caption"), ("classes", "label")):
        rows = [f"path,{column}"]
        for number in range(60):
            word, hertz = [("high", 1800), ("low", 300)][number % 2]
            soundfile.write(tmp_path / f"{name}_{number}.wav", tone(hertz + 5 * number), 8000)
            rows.append(f"{name}_{number}.wav,{f'a {word} tone' if column == 'caption' else word}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n")
    results = train_in(
        tmp_path,
        *("data=speech", "data/domain@data.source=audio_file", f"data.source.file={tmp_path}/pairs.csv"),
        *("data.source.label=null", "data/domain@data.target=audio_file", f"data.target.file={tmp_path}/classes.csv"),
        *("backbone=mel_cnn", "backbone.name=shufflenet_v2_x0_5", "backbone.library=torchvision", "trainer=cpu"),
        *("backbone.sample_rate=8000", "backbone.clip_seconds=0.3", "head=class_names", "data.augment=none"),
        *('head.templates=["a {} tone"]', *ZERO_SHOT, "pretrain.epochs=30", "data.num_workers=0", "logger=[]"),
    )
    assert results["data"]["source"]["labels"] == {"train": 0, "val": 0}
    assert results["metrics"]["test/target/acc"] > 0.8
    assert results["metrics"]["test/source/text_recall_at_1"] > 0.8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*")  # of Lightning, about forked processes
def test_captions_are_found_by_index_on_two_processes_and_after_a_resume(tmp_path):
    config = [*options(tmp_path), *LIT, "data.augment=none", "head.projection=none", "head.tower.size=500"]
    config += ["training.epochs=2", "optimizer=sgd", "optimizer.lr=0.05", "callbacks.progress=null", "data.epoch=4"]
    config = [word for word in config if word not in ("trainer=cpu", "head.tower.size=16", "data.epoch=source")]
    one = [*config, *ONE, "data.source_batch_size=8"]
    (whole,) = fitted(tmp_path, *one, folder="whole")
    check_same(fitted(tmp_path, *config, *TWO, "data.source_batch_size=4", folder="two"), whole)
    fitted(tmp_path, *one, folder="first", last_epoch=0)
    ((state, _),) = fitted(tmp_path, *one, folder="second", checkpoint=tmp_path / "first.ckpt")
    for name, value in whole[0].items():
        assert torch.equal(state[name], value), name
