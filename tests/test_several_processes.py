"""Two processes train as one does on both of their batches, whatever has a state, and go on where one stopped."""

import pytest
import torch

from tests.networks_on_disk import write_clip
from tests.processes import COMMON, LENET, ONE, TWO, check_same, check_two_test_as_one, check_two_train_as_one, fitted

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*")]  # of Lightning, about forked processes

JOINT = [
    *("data.source.samples=300", "strategy=scratch", "objective.alpha=0.5", "data.labels_per_class=8"),
    *("term=[mcd,dann,bi_tuning]", "term.bi_tuning.keys_per_class=3", "term.bi_tuning.momentum=0.9"),
    *("term.dann.hidden=16", "averaging=ema", "averaging.decay=0.9", "selection=target_val"),
]


def test_a_joint_run_with_adversaries_a_memory_bank_and_ema_goes_from_two_processes_to_one_and_back(tmp_path):
    config = [*COMMON, *LENET, *JOINT, "training.epochs=3"]
    one, two = [*config, *ONE, "data.batch_size=16"], [*config, *TWO, "data.batch_size=8"]
    (whole,) = fitted(tmp_path, *one, folder="whole")
    assert whole[0]["terms.bi_tuning.keys.seen"].sum() == 9 * 16
    assert any(name.startswith("val/target/") for name in whole[1])
    fitted(tmp_path, *two, folder="first", last_epoch=0)
    fitted(tmp_path, *one, folder="second", checkpoint=tmp_path / "first.ckpt", last_epoch=1)
    third = fitted(tmp_path, *two, folder="third", checkpoint=tmp_path / "second.ckpt")
    for saved, begun in (("first", ["second_begins_0"]), ("second", ["third_begins_0", "third_begins_1"])):
        state = torch.load(tmp_path / f"{saved}.ckpt", weights_only=True)["state_dict"]
        for name in begun:  # without a step between, to the bit
            own = torch.load(tmp_path / f"{name}.pt", weights_only=True)
            assert own.keys() == state.keys()
            assert all(torch.equal(own[key], value) for key, value in state.items())
    check_same(third, whole)


def test_cached_features_and_a_rule_without_labels_are_those_of_one_process(tmp_path):
    options = ["data.source.samples=300", "backbone.weights=source", "pretrain.epochs=1", "strategy=frozen"]
    options += ["data.labels_per_class=8", "selection=information_maximisation", "data.augment=none"]
    check_two_train_as_one(tmp_path, *options, rtol=1e-5)


def test_batches_of_texts_of_about_one_length_are_those_of_one_process(tmp_path):
    words = ["plain", "red", "green", "blue", "round", "small", "large"]
    file = tmp_path / "texts.csv"
    lines = [
        f"{' '.join(words[(i * k) % 7] for k in range(1, 2 + i % 9))},{'yes' if i % 2 else 'no'}" for i in range(80)
    ]
    file.write_text("\n".join(["text,label", *lines]))
    options = [
        "data=text",
        "data/domain@data.target=text_file",
        f"data.target.file={file}",
        "backbone=gru",
        "backbone.dropout=0",
    ]
    options += ["data.bucket_by_length=true", "strategy=scratch", "selection=target_val", "data.epoch=target"]
    check_two_train_as_one(tmp_path, *options, common=COMMON, rtol=1e-5)


@pytest.fixture
def samples(tmp_path):
    """Overrides for 80 texts with table fields, of which some are missing, and a fusion of both from scratch."""
    rows = []
    for i in range(80):
        text = "" if i % 11 == 0 else f"a {('plain', 'red', 'round')[i % 3]} film {'good ' * (i % 5)}"
        rows.append(f"{text},{'' if i % 7 == 0 else 20 + i},{('old', 'new')[i // 2 % 2]},{i % 2}")
    (tmp_path / "samples.csv").write_text("\n".join(["review,age,shop,liked", *rows]))
    data = ["data=multimodal", "data/domain@data.target=multimodal_file", "data.target.label=liked"]
    data += [f"data.target.file={tmp_path / 'samples.csv'}", "data.target.text=review", "selection=target_val"]
    lstm = ["backbone@backbone.parts.text=lstm", "backbone.parts.text.hidden_size=8", "backbone.parts.text.dropout=0"]
    table = ["backbone.parts.table.width=8", "backbone.parts.table.dropout=0", "backbone.width=8"]
    return [*data, "backbone=fusion", "backbone.method=gated", *lstm, *table]


def test_a_fusion_is_that_of_one_process(tmp_path, samples):
    scratch = [*samples, "strategy=scratch", "backbone.weights=null", "data.epoch=target"]
    check_two_train_as_one(tmp_path, *scratch, common=COMMON, rtol=1e-5)
    metrics = check_two_test_as_one(tmp_path, *scratch)
    assert {"test/target/acc", "test/target_without_text/acc", "test/target_without_table/acc"} <= metrics.keys()


def test_a_fusion_behind_kept_features_is_that_of_one_process(tmp_path, samples, tiny_bert):
    text = [f"backbone.parts.text.name={tiny_bert}", "backbone.parts.text.weights=pretrained"]
    kept = [one for one in samples if "parts.text" not in one]
    options = [*kept, *text, "backbone.parts.text.max_length=12", "strategy=frozen", "data.epoch=target"]
    check_two_train_as_one(tmp_path, *options, common=COMMON, rtol=1e-5)


def test_texts_to_texts_are_those_of_one_process(tmp_path):
    """A step's loss is the mean over all of its tokens, of which the processes have not the same number."""
    rows = [f"film {i} {'is very ' * (i % 4)}good,{'very ' * (i % 4)}good film" for i in range(64)]
    (tmp_path / "titles.csv").write_text("\n".join(["text,title", *rows]))
    options = ["data=text", "data/domain@data.target=text_to_text", f"data.target.file={tmp_path / 'titles.csv'}"]
    options += ["backbone=gru", "backbone.dropout=0", "head=gru_decoder", "head.dropout=0", "head.width=16"]
    options += ["task=seq2seq", "task.max_length=6", "strategy=scratch"]
    options += ["selection=target_val", "data.epoch=target", "data.bucket_by_length=false"]
    check_two_train_as_one(tmp_path, *options, common=COMMON, rtol=1e-5)
    check_two_test_as_one(tmp_path, *options)


def test_a_test_by_names_alone_is_that_of_one_process(tmp_path):
    folder = write_clip(tmp_path / "clip")
    network = ["backbone=clip_image", f"backbone.name={folder}", "backbone.weights=pretrained", "strategy=zero_shot"]
    tower = ["head/tower=encoder", f"head.tower.name={folder}", "head.tower.size=12", "head.projection=none"]
    data = ["data/domain@data.target=digits", "data.source=null", "save.neighbours=false"]
    assert "test/target/acc" in check_two_test_as_one(tmp_path, *data, *network, *tower)
