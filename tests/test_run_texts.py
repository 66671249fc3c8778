"""Runs on texts, from a file to results: nothing but data and backbone knows that they are."""

import random
from types import SimpleNamespace

import pytest
import torch
from lanes import one_in, slow

from graft.errors import GraftError, Interrupted
from graft.experiment import settings_of_strategy
from graft.strategies.bit_hyperrule import BitHyperRule
from graft.tasks.binary import Binary
from graft.tasks.multiclass import Multiclass
from tests.small_run import train_in
from tests.test_run import weights

TINY = [
    "data=text",
    "data/domain@data.target=text_file",
    "data.batch_size=4",
    "data.eval_batch_size=8",
    "data.bucket_by_length=true",
    "backbone.max_length=16",
    "training.epochs=2",
    "training.threads=1",
    "pretrain.epochs=1",
    "optimizer.lr=0.01",
    "trainer=cpu",
    "logger=csv",
]
LSTM = ["backbone=lstm", "backbone.embedding_size=8", "backbone.hidden_size=8"]
SOURCE = ["data/domain@data.source=text_file", "backbone.weights=source"]


@pytest.fixture
def run(tmp_path, tiny_bert):
    draw = random.Random(0)
    for name in ("target", "source"):
        lines = []
        for number in range(40):
            words = draw.choices(["film", "plot", "a", "it", "is", "was", f"{name}{number}"], k=draw.randint(1, 12))
            lines.append(f"{' '.join([*words, 'good' if number % 2 else 'bad'])}\t{number % 2}\n")
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "".join(lines))

    def run(*overrides, folder="run", cache="cache"):
        settings = [*TINY, f"data.target.file={tmp_path / 'target.tsv'}"]
        if not any(override.startswith("backbone=") for override in overrides):
            settings += ["backbone=bert", f"backbone.name={tiny_bert}"]
            settings += ["backbone.weights=pretrained"] * ("backbone.weights=source" not in overrides)
        if any("data.source" in override for override in overrides):
            settings.append(f"data.source.file={tmp_path / 'source.tsv'}")
        found = train_in(tmp_path, *settings, "allow=[tests]", *overrides, folder=folder, cache=tmp_path / cache)
        return found, tmp_path / folder

    return run


STRATEGIES = ("frozen", "gradual", "layer_decay", "freeze_until", "surgical", "bitfit", "norm_only", "lp_ft")


@pytest.mark.parametrize("strategy", ["full", *slow(*STRATEGIES, "lora", "ia3", "adapter")])
def test_strategies_on_an_encoder(run, strategy):
    if strategy in ("lora", "ia3"):
        pytest.importorskip("peft")
    found, _ = run(f"strategy={strategy}", *["strategy.stages=1"] * (strategy == "freeze_until"))
    assert found["status"] == "done"
    assert found["weights"]["source"].endswith("tiny_bert0")


@pytest.mark.slow
def test_baselines_see_words_and_features_and_change_nothing_of_the_training(run):
    found, folder = run("strategy=full", "baselines=auto")
    assert [*found["baselines"]] == [
        *("majority", "linear_words", "linear_features", "neighbours_words", "neighbours_features")
    ]
    assert found["baselines"]["linear_words"]["metrics"]["test/target/acc"] == 1  # good or bad stands in every text
    _, without = run("strategy=full", folder="without")
    assert all(torch.equal(value, weights(without)[name]) for name, value in weights(folder).items())


@pytest.mark.slow
def test_baselines_of_a_network_that_saw_the_source(run):
    found, _ = run("strategy=full", *LSTM, *SOURCE, "baselines=[source_only,pooled]", "data.labels_per_class=2")
    keys = ["linear_words_source_only", "linear_features_source_only", "linear_words_pooled", "linear_features_pooled"]
    assert [*found["baselines"]] == keys
    assert found["baselines"]["linear_words_source_only"]["metrics"]["test/target/acc"] == 1
    assert found["baselines"]["linear_features_pooled"]["labels"] == {"source": 28, "target": 4}


def test_words_are_too_many_to_align_but_not_to_correct_for_label_shift(run):
    scratch = ["strategy=scratch", *LSTM, *SOURCE, "training.epochs=1"]
    with pytest.raises(GraftError, match=r"baselines: aligned_coral needs .* a pretrained backbone"):
        run(*scratch, "baselines=[aligned_coral]")
    found, _ = run(*scratch, "baselines=[label_shift_bbse]")
    assert [*found["baselines"]] == ["label_shift_bbse_words"]
    assert found["baselines"]["label_shift_bbse_words"]["metrics"]["test/target/acc"] == 1


@pytest.mark.parametrize("strategy", ["gradual", *slow("layer_decay", "adapter")])
def test_strategies_on_a_recurrent_network_that_saw_the_source(run, strategy):
    found, _ = run(f"strategy={strategy}", *LSTM, *SOURCE)
    assert found["weights"]["source"].startswith("source")
    assert found["weights"]["missing"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["training.gradient_checkpointing=true"],
        ["training.gradient_checkpointing=true", "strategy=lora"],
        ["averaging=ema"],
        ["data.batch_size=auto", "tuning.max_batch_size=4"],
        ["optimizer.lr=auto", "tuning.steps=10"],
        ["term=[l2sp,bss,feature_distillation]"],
    ],
    ids=lambda options: options[-1],
)
def test_options_of_training(run, options):
    if "strategy=lora" in options:
        pytest.importorskip("peft")
    assert run("strategy=full", *options)[0]["status"] == "done"


@pytest.mark.parametrize(
    ("options", "message"),
    one_in(
        2,
        [
            (["training.mixup_alpha=0.2"], r"training\.mixup_alpha=0\.2 changes images"),
            (["data.test_shifts=[blur]"], r"data\.test_shifts=\[blur\]: there is no such shift of texts"),
            (["data.augment=light"], r"data\.augment=light: texts are taken as they are"),
            (["term=[delta]"], r"term\.delta compares maps of images, and .* takes text inputs"),
            (
                ["strategy=lora", *LSTM, *SOURCE],
                r"lstm has no linear layer and no 2d convolution that lora could adapt",
            ),
            (["term=[lwf]"], r"term\.lwf needs the head that the backbone was pretrained with"),
        ],
    ),
)
def test_what_texts_cannot_do_is_refused(run, options, message):
    if "strategy=lora" in options:
        pytest.importorskip("peft")
    with pytest.raises(GraftError, match=message):
        run("strategy=full", *options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["strategy=full"], ["strategy=gradual", *LSTM, "backbone.layers=2", *SOURCE]])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(run, options):
    options = [*options, "training.epochs=3"]
    _, whole = run(*options, folder="whole")
    stop = "+callbacks.stop={_target_: tests.test_run.StopAt, epoch: 1, batch: 3}"
    with pytest.raises(Interrupted):
        run(*options, stop, folder="stopped")
    _, resumed = run(*options, "resume=true", folder="stopped")
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())


@pytest.mark.slow
def test_kept_features_are_those_of_their_texts(run):
    kept, _ = run("strategy=frozen", folder="kept")
    plain, _ = run("strategy=frozen", "cache.features=false", folder="plain")
    assert kept["feature_cache"]["entries"]
    assert not plain["feature_cache"]["entries"]
    for name, value in plain["metrics"].items():
        assert kept["metrics"][name] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(
    ("modality", "task", "words"),
    [("text", Multiclass(), "text data"), ("image", Binary(), "labels of task=binary"), ("image", Multiclass(), None)],
)
def test_bit_hyperrule_leaves_out_mixing_what_cannot_be_mixed(modality, task, words):
    target = SimpleNamespace(train=range(20_000))
    data = SimpleNamespace(
        modality=modality, domains={"target": target}, samples_to_train=20_000, image_side=lambda: None
    )
    strategy = BitHyperRule()
    decided = settings_of_strategy(strategy, {"data": {"image_size": None}, "backbone": {}}, data, task)
    assert decided.get("training.mixup_alpha") == (None if words else 0.1)
    assert strategy.note == (f"without the strategy's MixUp: {words} cannot be mixed" if words else "")
