"""Two processes train as one does on both of their batches, whatever has a state, and go on where one stopped."""

import pytest
import torch

from tests.processes import COMMON, LENET, ONE, TWO, check_same, check_two_train_as_one, fitted

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
