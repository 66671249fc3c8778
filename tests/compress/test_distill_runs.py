"""Whole runs of compress=distill: every modality, task and strategy, resumed, kept and refused."""

import re

import numpy as np
import pytest
import torch
from lanes import slow

import graft
from graft.errors import GraftError, Interrupted
from graft.runs import checkpoints
from tests.small_run import train_in

TINY = ("training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv", "data.num_workers=0")
DIGITS = (
    *("data=mnist", "data/domain@data.target=digits", "data.source=null", "strategy=scratch", "data.image_size=16"),
    *("backbone=lenet", "optimizer.lr=3e-3", "data.labels_per_class=20", "data.batch_size=20"),
)
ALL = "compress.match=[logits,features,attention]"


@pytest.fixture(scope="module")
def taught_by(tmp_path_factory):
    """`compress.teacher` of a LeNet on larger digits, whose classes are in another order than the target's."""
    root = tmp_path_factory.mktemp("teacher")
    train_in(root, *TINY, *DIGITS, "data.image_size=20", "data.labels_per_class=50", "training.epochs=3")
    return f"compress.teacher={root / 'run'}"


def state(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def distilled(root, *overrides, folder="student"):
    return train_in(root, *TINY, "compress=distill", *overrides, folder=folder)


def test_the_record_names_the_teacher_and_nothing_of_it_is_kept(tmp_path, taught_by):
    results = distilled(tmp_path, *DIGITS, taught_by, "backbone=cnn", ALL)
    found = results["compression"]
    assert found["kind"] == "distill"
    assert found["match"] == {"logits": 0.9, "features": 1.0, "attention": 10.0}
    assert len(found["teacher_fingerprint"]) == 64
    assert {group["name"] for group in results["parameters"]["groups"]} >= {"term/distill"}
    metrics = (tmp_path / "student" / "metrics.csv").read_text().splitlines()[0]
    assert all(f"train/term/distill_{name}" in metrics for name in ("logits", "features", "attention"))
    names = {*state(tmp_path / "student", "best")["state_dict"]}
    assert {name for name in names if "distill" in name} == {
        "terms.distill.regressor.weight",
        "terms.distill.regressor.bias",
    }
    assert not any(name.startswith("compression.") for name in names)
    model = graft.load_run(tmp_path / "student")
    assert sum(p.numel() for p in model.backbone.parameters()) + sum(p.numel() for p in model.head.parameters()) == sum(
        group["parameters"] for group in results["parameters"]["groups"] if group["name"] != "term/distill"
    )


def test_without_weight_the_student_is_bit_for_bit_the_one_that_nobody_taught(tmp_path, taught_by):
    train_in(tmp_path, *TINY, *DIGITS, folder="alone")
    distilled(tmp_path, *DIGITS, taught_by, "compress.weight=0")
    alone, taught = (state(tmp_path / name)["state_dict"] for name in ("alone", "student"))
    assert alone.keys() == taught.keys()
    assert [name for name, value in alone.items() if not torch.equal(value, taught[name])] == []


@pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*")
@pytest.mark.parametrize(
    "options", [f"{ALL} data.augment=light", *slow("compress.match=[logits,features]", f"{ALL} strategy=full bn=joint")]
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, taught_by, monkeypatch, options):
    monkeypatch.setattr(checkpoints, "SHORTEST_S", 0.0, raising=False)
    options = [*DIGITS, taught_by, "backbone=cnn", *options.split(), "allow=[tests]"]
    whole = distilled(tmp_path, *options, folder="whole")
    stop = "+callbacks.stop={_target_: tests.test_run.StopAt, epoch: 1, batch: 2}"
    with pytest.raises(Interrupted):
        distilled(tmp_path, *options, stop, folder="stopped")
    resumed = distilled(tmp_path, *options, "resume=true", folder="stopped")
    first, second = (state(tmp_path / name)["state_dict"] for name in ("whole", "stopped"))
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []
    assert resumed["metrics"] == whole["metrics"]


@pytest.mark.slow
def test_a_run_goes_on_with_the_teacher_it_began_with(tmp_path, taught_by):
    train_in(tmp_path, *TINY, *DIGITS, "seed=1", folder="other")
    distilled(tmp_path, *DIGITS, taught_by)
    more = ["training.epochs=3", "resume=true", f"compress.teacher={tmp_path / 'other'}"]
    with pytest.raises(GraftError, match="not those that the checkpoint was taught by"):
        distilled(tmp_path, *DIGITS, *more)


@pytest.mark.slow
def test_a_teacher_teaches_what_labels_do_not(tmp_path, taught_by):
    """One label a class, and a teacher that knows fifty of each: both on the same samples, and on unlabelled ones."""
    few = [*DIGITS, "data.labels_per_class=1", "training.epochs=30", "data.batch_size=10", "selection=last"]
    alone = train_in(tmp_path, *TINY, *few, folder="alone")["score"]["value"]
    semi = ["data.target_setting=semi", "data.unlabelled_batch_size=64", "training.epochs=5"]
    taught = distilled(tmp_path, *few, taught_by, *semi, folder="taught")["score"]["value"]
    none = [
        "data.target_setting=unsupervised",
        "objective.alpha=null",
        "compress.weight=1",
        "data.labels_per_class=null",
    ]
    unlabelled = distilled(tmp_path, *few, taught_by, *none, "training.epochs=5", folder="unlabelled")["score"]["value"]
    assert min(taught, unlabelled) > alone + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "strategy=frozen compress.match=[logits]",
        "strategy=lp_ft",
        "strategy=gradual",
        "strategy=lora",
        "strategy=adapter",
        "strategy=bitfit",
        "strategy=full averaging=ema",
        "strategy=full averaging=swad",
        "strategy=full selection=budget",
        "strategy=full term=[l2sp,delta]",
        # At 16 pixels a ResNet's last maps are 1 x 1. Of a convolution with stride 2 on those PyTorch 2.15's gradient
        # in bf16 on the CPU is of memory that nothing wrote: another one each time, and now and then not finite.
        "strategy=full trainer.precision=bf16-mixed data.image_size=32",
        "strategy=full trainer.precision=64-true",
        "strategy=full training.mixup_alpha=0.2 data.image_size=20",
        "strategy=full training.gradient_checkpointing=true",
    ],
)
def test_it_goes_with_strategies_terms_and_options(tmp_path, taught_by, options):
    backbone = ["backbone=resnet18", f"backbone.weights={tmp_path / 'before'}"]
    train_in(tmp_path, *TINY, *DIGITS, "backbone=resnet18", "training.epochs=1", folder="before")
    options = ["training.epochs=3", *backbone, "strategy=full", ALL, *options.split()]
    results = distilled(tmp_path, *DIGITS, taught_by, *options)
    assert np.isfinite(results["score"]["value"])


@pytest.mark.slow
@pytest.mark.parametrize("bn", ["joint", "separate", "domain_specific"])
def test_beside_a_source_only_target_samples_are_taught(tmp_path, taught_by, bn):
    source = ["data/domain@data.source=glyphs", "data.source.samples=100", "objective.alpha=0.5", f"bn={bn}"]
    results = distilled(tmp_path, *[one for one in DIGITS if one != "data.source=null"], taught_by, *source, ALL)
    assert np.isfinite(results["score"]["value"])


@pytest.mark.slow
def test_a_target_of_its_own_classes_learns_from_its_teacher_alone(tmp_path, taught_by):
    """The source has fewer classes and a head of its own, and the target no labels."""
    source = ["data/domain@data.source=glyphs", "data.source.samples=100", "data.source_classes=[0,1,2]"]
    unlabelled = ["data.target_setting=unsupervised", "objective.alpha=1", "selection=last", "head.sharing=separate"]
    own = [one for one in DIGITS if one not in ("data.source=null", "data.labels_per_class=20")]
    results = distilled(tmp_path, *own, taught_by, *source, *unlabelled, "training.epochs=5")
    assert results["score"]["value"] > 0.4


# Other modalities and tasks


def reviews(folder):
    rows = [f"a {'good' if n % 2 else 'bad'} film of number {n}{' and more' * (n % 4)}\t{n % 2}" for n in range(60)]
    (folder / "reviews.tsv").write_text("\n".join(["text\tlabel", *rows]))
    return ["data=text", "data/domain@data.target=text_file", f"data.target.file={folder / 'reviews.tsv'}"]


def table(name, *more):
    return lambda folder: ["data=table", f"data/domain@data.target={name}", "strategy=scratch", *more]


def scans(folder):
    random = np.random.default_rng(0)
    labels = (random.random((60, 3)) > 0.5).astype(np.uint8)
    labels[labels.sum(1) == 0, 0] = 1
    np.savez(folder / "scans.npz", images=random.integers(0, 255, (60, 16, 16), dtype=np.uint8), labels=labels)
    target = ["data/domain@data.target=image_arrays", f"data.target.file={folder / 'scans.npz'}"]
    kind = ["data.target.label_kind=multilabel", "task=multilabel"]
    return ["data=mnist", *target, "data.source=null", *kind, "strategy=scratch", "data.image_size=16"]


KINDS = {
    "texts": (reviews, ["backbone=lstm", "strategy=scratch"], ["backbone=gru", "strategy=scratch"]),
    "tables": (table("wine"), ["backbone=ft_transformer"], ["backbone=mlp", "backbone.width=8"]),
    "yes_or_no": (table("breast_cancer", "task=binary"), ["backbone=mlp"], ["backbone=mlp", "backbone.width=8"]),
    "numbers": (table("diabetes", "task=regression"), ["backbone=mlp"], ["backbone=mlp", "backbone.width=8"]),
    "several_labels": (scans, ["backbone=lenet"], ["backbone=cnn"]),
    "sequences": (
        lambda folder: ["data=sequences", "strategy=scratch", "data.labels_per_class=10"],
        ["backbone=lstm_sequence"],
        ["backbone=gru_sequence", "backbone.hidden_size=8"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_modality_and_task_is_taught(tmp_path, kind):
    data, large, small = KINDS[kind]
    own = data(tmp_path)
    train_in(tmp_path, *TINY, *own, *large, folder="teacher")
    match = "compress.match=[logits,features]"
    results = distilled(tmp_path, *own, *small, f"compress.teacher={tmp_path / 'teacher'}", match)
    assert np.isfinite(results["score"]["value"])
    assert np.isfinite(graft.load_run(tmp_path / "student").metrics[results["score"]["metric"]])


@pytest.mark.slow
def test_a_transformer_teaches_a_network_of_other_tokens_and_one_of_its_own(tmp_path, tiny_bert):
    own, bert = reviews(tmp_path), ["backbone=bert", f"backbone.name={tiny_bert}", "backbone.max_length=32"]
    train_in(tmp_path, *TINY, *own, *bert, "strategy=scratch", folder="teacher")
    teacher = f"compress.teacher={tmp_path / 'teacher'}"
    distilled(tmp_path, *own, "backbone=lstm", "strategy=scratch", teacher, "compress.match=[logits,features]")
    results = distilled(tmp_path, *own, *bert, "strategy=scratch", "seed=1", teacher, ALL, folder="same")
    assert np.isfinite(results["score"]["value"])
    with pytest.raises(GraftError, match="compares tokens one by one"):
        distilled(tmp_path, *own, "backbone=lstm", "strategy=scratch", teacher, ALL, folder="refused")


@pytest.mark.slow
def test_sound_is_taught(tmp_path, tones):
    own = ["data=speech", f"data.target.root={tones}", "strategy=scratch", "data.batch_size=4"]
    own += [r"data.target.pattern='(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_(?P<index>\d+)'"]
    small = ["backbone=mel_cnn", "backbone.name=resnet18", "backbone.library=torchvision"]
    train_in(tmp_path, *TINY, *own, *small, "backbone.clip_seconds=0.5", "backbone.n_mels=32", folder="teacher")
    options = ["backbone.clip_seconds=0.4", "backbone.n_mels=24", f"compress.teacher={tmp_path / 'teacher'}", ALL]
    results = distilled(tmp_path, *own, *small, *options, "data.augment=light")
    assert np.isfinite(results["score"]["value"])


# What the config's check finds before data are read


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["compress.teacher=nowhere"], [r"`compress\.teacher`: nowhere: there is no such folder"]),
        (
            ["compress.match=[logit]", "compress.temperature=0", "compress.weight=1.5"],
            ["did you mean logits", r"`compress\.temperature=0`: must be a number > 0", r"`compress\.weight=1\.5`"],
        ),
        (
            ["task=binary", "training.progressive_resizing.initial_scale=0.5", "strategy=frozen", ALL],
            [
                "with `task=binary`: it was trained for task=multiclass",
                "a teacher takes images of its own size",
                "features come from the backbone, which does not train",
            ],
        ),
        *slow(
            (["compress.teacher=???"], [r"`compress\.teacher` has to be given"]),
            (["compress.match=[]"], [r"`compress\.match=\[\]`: must be a list .*at least 1"]),
        ),
    ],
)
def test_mistakes_are_named_before_anything_is_read(app, taught_by, overrides, messages):
    outcome = app("data=mnist", "backbone=lenet", "logger=csv", "compress=distill", taught_by, *overrides)
    assert outcome.code == 2
    for message in messages:
        assert re.search(message, outcome.err), outcome.err
