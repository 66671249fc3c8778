"""Graft's own checks of a composed config: all mistakes in one message, before anything loads."""

import pytest
from hydra import initialize_config_dir
from lanes import one_in, slow
from omegaconf import OmegaConf
from train_app import PROJECT

from graft import config
from graft.cli.hydra_versions import VERSION_BASE
from graft.config.renamed import RENAMED
from graft.errors import GraftError

CONF = PROJECT / "conf"


def composed(*overrides):
    from hydra import compose

    cfg = compose("train", overrides=[*overrides, "paths.run_dir=run"], return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), choices


def problems(*overrides):
    """Lines of the message, without bullets; empty where all is well."""
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        return problems_of(*composed(*overrides))


def problems_of(cfg, choices):
    try:
        config.check(cfg, choices)
    except GraftError as error:
        return [line[4:] for line in str(error).splitlines() if line.startswith("  - ")]
    return []


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_passes(experiment):
    folder, table = ["data.target.root=photos"], ["data.target.file=table.csv", "data.target.label=outcome"]
    own = dict.fromkeys(("image_folder", "mobilenet_photos", "vgg_head", "my_photos", "my_recordings"), folder)
    own |= {"my_table": table, "my_texts": table[:1], "captions": [*folder, "data.source.file=captions.csv"]}
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg, choices = composed(f"experiment={experiment}", *own.get(experiment, []))
        assert problems_of(cfg, choices) == []
    assert cfg.name == experiment


LEARNS_TARGET = ["backbone.weights=target", "strategy=full"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], "`backbone.weights=target` with `pretrain=default`: the target's own labels are for the run"),
        (["pretrain.objective.alpha=null"], "`pretrain.objective.alpha=null` without a term: nothing gives a loss"),
        (["pretrain=mlm"], "`pretrain.term.mlm` with image data: it is for text data"),
        *slow(
            (
                ["data=text", "backbone=lstm", "pretrain=simclr"],
                "`pretrain.term.simclr` with text data: it is for image",
            ),
            (["data=table", "backbone=mlp", "pretrain=byol"], "`pretrain.term.byol` with table data"),
            (["pretrain=scarf"], "`pretrain.term.scarf` with image data: it is for table data"),
            (
                ["term=[vicreg]", "term.vicreg.domain=target", "pretrain=byol", "data=text"],
                "`term=vicreg` with text data",
            ),
            (["pretrain=simclr", "pretrain.term.simclr.domain=target"], "`pretrain.term.simclr.domain=target`: "),
            (["pretrain=simclr", "head.weights=run"], "`head.weights=run` with `backbone.weights=target`"),
            (["data=sequences", "pretrain=cpc", "backbone=lstm_sequence"], "with `backbone.bidirectional=true`"),
            (
                ["data=speech", "data.target.root=r", "pretrain=cpc", "backbone=mel_cnn"],
                "with `backbone=mel_cnn`: it needs",
            ),
        ),
    ],
)
def test_what_cannot_be_learned_without_labels_is_refused(overrides, expected):
    found = problems(*LEARNS_TARGET, *overrides)
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(
    "overrides",
    [
        ["pretrain=vicreg", "data.source=null"],
        *slow(
            ["data=table", "backbone=mlp", "pretrain=scarf"],
            ["data=text", "backbone=bert", "pretrain=mlm"],
            ["data=sequences", "backbone=gru_sequence", "backbone.bidirectional=false", "pretrain=cpc"],
            ["strategy=scratch_matched", "pretrain=simclr", "data.source=null"],
            ["data=domains", "data.root=r", "data.target_domain=a", "pretrain=byol", "backbone.weights=source"],
            ["pretrain=mlm", "strategy=scratch", "backbone.weights=null"],
        ),
    ],
)
def test_what_can_be_learned_without_labels_passes(overrides):
    assert [line for line in problems(*LEARNS_TARGET, *overrides) if "data.root" not in line] == []


@pytest.mark.parametrize(("mode", "trainer"), [("fast", "cpu"), ("overfit", "gpu"), ("profile", "ddp_cpu")])
def test_debug_modes_and_trainers_pass(mode, trainer):
    assert problems(f"debug={mode}", f"trainer={trainer}", "experiment=resnet_ft") == []


def test_all_mistakes_are_told_at_once():
    found = problems("+optimizer.lrr=1", "objective.alpha=2", "seed=abc", "training.epochs=3.5", "data.epoch=sorce")
    assert sorted(line.split("`")[1] for line in found) == [
        "data.epoch=sorce",
        "objective.alpha=2",
        "optimizer.lrr",
        "seed=abc",
        "training.epochs=3.5",
    ]
    assert any("did you mean `optimizer.lr`?" in line for line in found)
    assert any("did you mean source?" in line for line in found)


WRONG_VALUES = {
    "objective.alpha=1.5": "must be null or a number >= 0 and <= 1",
    "objective.alpha_end=-0.5": "must be null or a number >= 0 and <= 1",
    "seed=1.0": "must be an integer >= 0",
    "pretrain.seed=true": "must be an integer >= 0",
    "data.split_seed=null": "must be an integer >= 0",
    "optimizer.lr=0": "must be auto or default or a number > 0",
    "pretrain.optimizer.lr=auto": "must be a number > 0",
    "training.epochs=0": "must be an integer >= 1",
    "optimizer.weight_decay=inf": "must be a finite number",
    "training.gradient_clip_norm=nan": "must be a finite number",
    "training.on_nonfinite=skp": "did you mean skip?",
    "data.labels_per_class=0": "must be null or an integer >= 1",
    "data.batch_size=big": "must be auto or an integer >= 1",
    "data.augment=lite": "must be none or light or crop or randaugment or specaugment (did you mean light?)",
    "data.target_setting=half": "must be supervised or semi or unsupervised",
    "data.source=digits": "must be null or a mapping",
    "tags=word": "must be a list",
    "name=null": "must be text",
    "optimizer.decay_norms_and_biases=1": "must be true or false",
    "backbone.weights=imagnet": "did you mean imagenet?",
    "trainer.devices=-2": "must be auto or -1 or an integer >= 1 or text or a list of integers >= 0 (at least 1)",
    "bn=seperate": "did you mean separate?",
    "tune=foo": "must be null or lr",
    "tuning.suggestion=valey": "did you mean valley?",
    "training.wise_ft_alphas=0.5": "must be null or a list",
    "training.mixup_alpha=0": "must be null or a number > 0",
    "training.cutmix_alpha=-1": "must be null or a number > 0",
    "training.stochastic_depth=1.0": "must be null or a number >= 0 and < 1",
    "training.gradient_checkpointing=1": "must be true or false",
    "training.progressive_resizing.initial_scale=1": "must be null or a number > 0 and < 1",
    "trainer.precision=bf16-mixd": "did you mean bf16-mixed?",
    "training.progressive_resizing.full_size_at=0": "must be a number > 0 and <= 1",
}


def test_wrong_values_are_told_with_what_is_allowed():
    found = problems(*WRONG_VALUES)
    for override, expected in WRONG_VALUES.items():
        assert [line for line in found if line.startswith(f"`{override}`: ") and expected in line], (override, found)
    assert len(found) == len(WRONG_VALUES)


@pytest.mark.slow
def test_wrong_values_of_regularizers_are_told():
    wrong = ["term.l2sp.weight=-1", "term.l2sp.head_ratio=-1", "term.bss.k=0", "term.delta.attention_samples=0"]
    found = problems("term=[l2sp,delta,bss,feature_distillation]", *wrong, "term.delta.layers=layer1")
    assert sorted(line.split("`")[1] for line in found) == sorted([*wrong, "term.delta.layers=layer1"])
    weights = "backbone.weights=source"
    assert problems("term=[delta,l2sp]", weights, "term.delta.layers=[layer1,layer2]", "term.l2sp.weight=0") == []


@pytest.mark.parametrize(
    ("strategy", "value", "expected"),
    one_in(
        2,
        [
            ("lora", "strategy.r=0", "must be an integer >= 1"),
            ("lora", "strategy.alpha=0", "must be a number > 0"),
            ("lora", "strategy.dropout=1", "must be a number >= 0 and < 1"),
            ("ia3", "strategy.target_modules=3", "must be text or a list of texts"),
            ("adapter", "strategy.bottleneck=0.5", "must be an integer >= 1"),
        ],
    ),
)
def test_wrong_values_of_a_strategy_are_told(strategy, value, expected):
    assert problems(f"strategy={strategy}", "backbone.weights=source", value) == [f"`{value}`: {expected}"]


def test_a_tuners_options_are_free():
    tuner = ["strategy=peft", "backbone.weights=source", "strategy.tuner=loha"]
    assert problems(*tuner, "+strategy.options.r=4", "strategy.target_modules=[conv1]") == []


def test_wrong_keys_are_told():
    found = problems("+foo=1", "+data.foo.bar=1", "~optimizer.lr", "+logger.nothing=1", "+training.epoch=3")
    assert sorted(found)[:4] == [
        "`data.foo`: there is no such key (did you mean `data.fold`?)",
        "`foo`: there is no such key",
        "`logger.nothing=1`: must be null or a mapping with _target_",
        "`training.epoch`: there is no such key (did you mean `training.epochs`?)",
    ]
    assert "`~optimizer.lr`: the key is needed; give it a value instead" in found


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("~strategy", "`strategy`: a run needs one"),
        ("strategy=[full,frozen]", "`strategy`: takes one option of adapter,"),
        ("experiment=image_folder", "`data.target.root` has to be given"),
    ],
)
def test_a_missing_choice_is_told(override, expected):
    assert expected in "\n".join(problems(override))


def test_files_that_are_missing_are_told():
    assert "no such file" in problems("backbone.weights=missing.pt")[0]
    assert "no such checkpoint" in problems("resume=missing.ckpt")[0]


def test_a_list_of_numbers_stays_one():
    assert "must be a list of numbers" in problems("scheduler=step", "scheduler.milestones=[a]")[0]


@pytest.mark.parametrize(
    "overrides",
    one_in(
        3,
        [
            [
                "objective.alpha=1",
                "objective.alpha_end=0.5",
                "optimizer.lr=1",
                "optimizer.weight_decay=0",
                "data.epoch=17",
            ],
            [
                "data.labels_per_class=null",
                "data.epoch=longest",
                "+optimizer.options.betas=[0.8,0.9]",
                "trainer.devices=auto",
            ],
            [
                "optimizer=sgd",
                "optimizer.options={}",
                "logger=[csv,tensorboard]",
                "callbacks.progress=null",
                "logger.csv=null",
            ],
            ["averaging=ema", "averaging.decay=0.9", "training.wise_ft_alphas=[0,0.5]", "backbone.weights=source"],
            ["averaging=swa", "averaging.lr_fraction=null", "scheduler=plateau"],
            ["logger=csv", "trainer.devices=[0,1]", "trainer.limit_train_batches=3", "notes=a few words"],
            ["tune=lr", "optimizer.lr=auto", "data.batch_size=auto", "scheduler=plateau"],
            ["training.mixup_alpha=0.2", "training.cutmix_alpha=1", "task=multilabel", "training.stochastic_depth=0.1"],
            ["training.progressive_resizing.initial_scale=0.5", "training.gradient_checkpointing=true"],
            ["logger=[]", "data.seed=${data.split_seed}", "data.source=null", "strategy=scratch"],
            ["backbone.weights=null", "strategy=scratch"],
        ],
    ),
)
def test_what_is_allowed_passes(overrides):
    assert problems(*overrides) == []


AGAINST_EACH_OTHER = [
    (["strategy=frozen", "backbone.weights=null"], ["`strategy=frozen` with `backbone.weights=null`"]),
    (["strategy=lp_ft", "backbone.weights=null"], ["`strategy=lp_ft` with `backbone.weights=null`"]),
    (
        ["data.source=null", "backbone.weights=source", "selection=source_val", "data.epoch=source"],
        ["`backbone.weights=source` without", "`selection=source_val` without", "`data.epoch=source` without"],
    ),
    (
        ["data.source=null", "strategy=scratch", "objective.alpha=0.3", "objective.alpha_end=0"],
        ["`objective.alpha=0.3 to 0` without source data"],
    ),
    (
        ["data.target_setting=unsupervised", "objective=additive", "data.source=null", "strategy=scratch"],
        ["`objective=additive` without source", "`data.target_setting=unsupervised` with `objective=additive`"],
    ),
    (
        ["data.target_setting=unsupervised", "objective.alpha=1", "objective.alpha_end=0.5"],
        ["`data.target_setting=unsupervised` with `objective.alpha=1 to 0.5`"],
    ),
    (
        [
            "backbone.weights=source",
            "term=[co_tuning,bi_tuning]",
            "head=mlp",
            "data.target_setting=unsupervised",
            "objective.alpha=1",
        ],
        ["`term=co_tuning` with `data", "`term=bi_tuning` with `data", "`term=bi_tuning` with `head=mlp`"],
    ),
    (
        ["strategy=lp_ft", "backbone.weights=source", "training.epochs=1"],
        ["`training.epochs=1` with `strategy=lp_ft`"],
    ),
    (
        ["training.epochs=5", "training.validate_every_epochs=2", "scheduler=plateau", "selection=last"],
        ["`training.validate_every_epochs=2`", "`scheduler=plateau` with `sel", "`scheduler=plateau` with `train"],
    ),
    (
        ["scheduler=plateau", "strategy=lp_ft", "backbone.weights=source", "scheduler@pretrain.scheduler=plateau"],
        ["`scheduler=plateau` with `strategy=lp_ft`", "`scheduler@pretrain.scheduler=plateau`"],
    ),
    (
        ["training.wise_ft_alphas=[0,1]", "selection=last", "backbone.weights=null", "strategy=scratch"],
        [f"`training.wise_ft_alphas=[0, 1]`{end}" for end in (" with `selection", " with `backbone")],
    ),
    (["training.wise_ft_alphas=[]", "backbone.weights=source"], ["`training.wise_ft_alphas=[]`: must be null or"]),
    (["training.wise_ft_alphas=[0,2]", "backbone.weights=source"], ["`training.wise_ft_alphas=[0, 2]`: must be"]),
    (
        ["training.wise_ft_alphas=[0]", "backbone.weights=source", "strategy=scratch"],
        ["`training.wise_ft_alphas=[0]` with `strategy=scratch`"],
    ),
    *(
        (["averaging=greedy_soup", f"selection={rule}"], [f"`averaging=greedy_soup` with `selection={rule}`"])
        for rule in ("last", "budget")
    ),
    (
        ["strategy=scratch_matched", "backbone.weights=null"],
        ["`strategy=scratch_matched` with `backbone.weights=null`"],
    ),
    (["averaging=swad"], ["`averaging=swad` with `selection=target_val`"]),
    (["task=open_set"], ["`task=open_set` with `data.label_sets=closed`"]),
    (
        ["data.label_sets=open"],
        ["`data.label_sets=open` with `task=multiclass`", "`data.label_sets=open` with `data.target_setting="],
    ),
    (["data.label_sets=partial", "task=binary"], ["`data.label_sets=partial` with `task=binary`"]),
    (
        ["strategy=scratch_matched", "backbone.weights=source", "data.batch_size=auto"],
        ["`strategy=scratch_matched` with `data.batch_size=auto`"],
    ),
    (["averaging=swa", "scheduler=plateau"], ["`scheduler=plateau` with `averaging=swa`"]),
    (["soup=nowhere", "resume=true"], ["`resume` with `soup`", "`soup=nowhere`: there is no such folder"]),
    (["bn=domain_specific", "trainer.sync_batchnorm=true"], ["`bn=domain_specific` with `trainer.sync_batch"]),
    (
        ["backbone.weights=source", "term=[stochnorm]", "trainer.sync_batchnorm=true"],
        ["`term=stochnorm` with `trainer.sync_batch"],
    ),
    (["tuning.low=1", "tuning.high=0.1"], ["`tuning.low=1` with `tuning.high=0.1`"]),
    (["tune=lr", "resume=true"], ["`tune=lr` with `resume=true`"]),
    (["data.batch_size=auto", "trainer=ddp_cpu"], ["`data.batch_size=auto` with several processes"]),
    (["data.batch_size=auto", "trainer.devices=[0,1]"], ["`data.batch_size=auto` with several processes"]),
    (
        ["task=binary", "training.mixup_alpha=0.2", "training.cutmix_alpha=1.0"],
        ["`training.mixup_alpha=0.2 training.cutmix_alpha=1.0` with `task=binary`: "],
    ),
    (
        ["backbone.weights=source", "term=[co_tuning]", "objective.alpha=1"],
        ["`term=co_tuning` with `objective.alpha=1`: "],
    ),
    (
        ["backbone.weights=source", "term=[bi_tuning]", "training.mixup_alpha=0.2"],
        ["`training.mixup_alpha=0.2` with `term=bi_tuning`: "],
    ),
    (
        [
            "term=[mcd,mean_teacher]",
            "task=binary",
            "data.source=null",
            "strategy=scratch",
            "training.mixup_alpha=0.2",
        ],
        [
            "`term=mcd` with `task=binary`: ",
            "`term=mcd` without source data",
            "`term=mean_teacher` with `task=binary`: ",
            "`training.mixup_alpha=0.2` with `term=mean_teacher`: ",
            "`training.mixup_alpha=0.2` with `task=binary`: ",
        ],
    ),
    (["task=regression", "training.cutmix_alpha=1"], ["`training.cutmix_alpha=1` with `task=regression`: "]),
    (
        [
            "training.progressive_resizing.initial_scale=0.5",
            "training.progressive_resizing.growth_begins=0.9",
        ],
        ["`training.progressive_resizing.growth_begins=0.9` with `full_size_at=0.8`: "],
    ),
    (
        ["training.compile=true", "training.gradient_checkpointing=true"],
        ["`training.compile=true` with `training.gradient_checkpointing=true`: "],
    ),
]


@pytest.mark.parametrize(("overrides", "expected"), one_in(3, AGAINST_EACH_OTHER))
def test_keys_that_cannot_be_meant_together(overrides, expected):
    found = problems(*overrides)
    assert len(found) == len(expected)
    for line, beginning in zip(found, expected, strict=True):
        assert line.startswith(beginning)


def test_scratch_does_not_ask_for_weights():
    assert problems("strategy=scratch", "data.source=null", "backbone.weights=source") == []
    assert problems("strategy=scratch", "backbone.weights=null") == []


def test_an_unlabelled_target_with_alpha_one_passes():
    assert problems("data.target_setting=unsupervised", "objective.alpha=1") == []


def test_a_mistake_behind_a_reference_is_told_once():
    assert len(problems("seed=abc")) == 1
    assert len(problems("task.label_smoothing=3")) == 1


def test_a_reference_that_leads_nowhere():
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg, choices = composed("optimizer.lr=${nowhere}")
        with pytest.raises(GraftError, match="nowhere"):
            config.check(cfg, choices)


def test_a_misspelt_key_in_an_experiment_is_found(app, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\n# Mine\ntraining: {epochz: 3}\noptimizer: {options: {eps: 1.0e-7}}\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    outcome = app(f"--config-dir={tmp_path / 'conf'}", "experiment=mine")
    assert outcome.code == 2
    assert "`training.epochz`: there is no such key (did you mean `training.epochs`?)" in outcome.err
    assert outcome.err.count("  - ") == 1


@pytest.mark.parametrize("old", [*RENAMED][:1] + slow(*[*RENAMED][1:]))
def test_a_renamed_key_is_told_by_its_new_name(app, tmp_path, old):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    group, _, name = old.partition(".")
    text = f"# @package _global_\n# Mine\n{group}: {{{name}: 3}}\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text)
    for arguments in ([f"+{old}=3"], [f"--config-dir={tmp_path / 'conf'}", "experiment=mine"]):
        outcome = app(*arguments, "backbone=mel_cnn")
        assert outcome.code == 2
        assert f"`{old}` is now `{RENAMED[old]}`" in outcome.err
        assert outcome.err.count("  - ") == 1


def test_values_alone_are_checked_without_hydra():
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg, _ = composed("objective.alpha=2")
    with pytest.raises(GraftError, match="alpha=2"):
        config.check(cfg)


def test_trainer_keys_are_arguments_of_the_trainer():
    import inspect

    import pytorch_lightning as pl

    arguments = inspect.signature(pl.Trainer).parameters
    for path in (CONF / "trainer").glob("*.yaml"):
        keys = set(OmegaConf.load(path)) - {"defaults"}
        assert keys <= set(arguments), path


@pytest.mark.parametrize("override", ["strategy=scratch", "backbone.weights=null"])
def test_terms_that_keep_to_pretrained_weights_need_some(override):
    found = problems("term=[l2sp,bss]", "backbone.weights=source", override)
    expected = f"`term=l2sp` with `{override}`: it keeps to pretrained weights, and there are none; leave it out"
    assert found[-1] == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.labels_per_class=null", "`data.target_setting=semi` with `data.labels_per_class=null`"),
        ("training.mixup_alpha=0.2", "`data.target_setting=semi` with `training.mixup_alpha=0.2`"),
        ("selection=budget", "`data.target_setting=semi` with `selection=budget`"),
        ("term=[bi_tuning]", "`term=bi_tuning` with `data.target_setting=semi`"),
    ],
)
def test_what_a_partly_labelled_target_cannot_have(override, message):
    (found,) = problems("data.target_setting=semi", "backbone.weights=source", override)
    assert found.startswith(message)


def test_only_a_partly_labelled_target_has_unlabelled_samples_beside_others():
    (found,) = problems("data.unlabelled_batch_size=3")
    assert found.startswith("`data.unlabelled_batch_size` without `data.target_setting=semi`")
    (found,) = problems("+data.target_labeled=false")
    assert found == "`data.target_labeled` is now `data.target_setting`"


def test_a_classifier_that_stays_has_learned():
    (found,) = problems("strategy=fixed_head", "backbone.weights=imagenet")
    assert found.startswith("`strategy=fixed_head` with `head.weights=null`")
    (found,) = problems("head.weights=run", "backbone.weights=source")
    assert found.startswith("`head.weights=run` with `backbone.weights=source`")
    (found,) = problems("objective.alpha=null", "term=[l2sp]")
    assert found.startswith("`objective.alpha=null` without a term that draws from a domain")


GROWN = ("head.grow=true", "head.weights=run", "backbone.weights=README.md")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("head.weights=null",), "`head.grow=true` with `head.weights=null`: no head could grow"),
        (("backbone.weights=imagenet",), "`head.grow=true` with `backbone.weights=imagenet`: the rows of a head"),
        (("strategy=scratch",), "`head.grow=true` with `strategy=scratch`"),
        (("strategy=fixed_head",), "`head.grow=true` with `strategy=fixed_head`: the rows of new classes would stay"),
        (("task=binary",), "`head.grow=true` with `task=binary`"),
        (("head.sharing=separate",), "`head.grow=true` with `head.sharing=separate`"),
        (("data.label_sets=partial",), "`head.grow=true` with `data.label_sets=partial`"),
        (("objective.alpha=1",), "`head.grow=true` with `objective.alpha=1`: no label of a new class would train"),
        (("objective=additive_retraining",), "`head.grow=true` with `objective=additive_retraining`"),
    ],
)
def test_a_head_that_grows_needs_a_run_labels_and_one_head(overrides, message):
    assert [one for one in problems(*GROWN, *overrides) if one.startswith(message)]


def test_a_head_that_grows_passes():
    assert problems(*GROWN) == []


def test_adabn_needs_statistics_of_each_domain():
    unlabelled = ["term=[adabn]", "objective.alpha=1", "backbone.weights=source"]
    assert problems(*unlabelled, "bn=domain_specific") == []
    (found,) = problems(*unlabelled)
    assert found == "`bn=joint` with `term=adabn`: it adapts one domain's statistics; use bn=domain_specific"


def test_a_layer_is_chosen_by_features_that_are_there():
    auto = ["backbone=vit", "backbone.layer=auto", "strategy=full"]
    (found,) = problems(*auto, "backbone.weights=source", "data/domain@data.source=glyphs")
    assert found.startswith("`backbone.layer=auto` with `backbone.weights=source`: the layer is chosen by what")
    (found,) = problems(*auto, "backbone.weights=imagenet", "strategy=scratch")
    assert found.startswith("`backbone.layer=auto` with `strategy=scratch`: random layers have nothing to choose by")
    assert problems(*auto, "backbone.weights=imagenet") == []
    (found,) = problems("backbone=vit", "backbone.layer=-1")
    assert "backbone.layer=-1" in found
    assert "auto or an integer >= 0" in found


@pytest.mark.slow
def test_alignment_needs_an_embedding_that_trains():
    align = ["term=[mcd]", "objective.alpha=1", "strategy=frozen", "backbone.weights=source"]
    (found,) = problems(*align)
    assert found.startswith("`term=mcd` with `strategy=frozen head=linear`: nothing that it could move trains; use")
    assert problems(*align, "head=bottleneck") == problems(*align, "strategy.train_bn=true") == []
    (found,) = problems("head=bottleneck", "bn=domain_specific")
    assert found.startswith("`bn=domain_specific` with `head=bottleneck`")


MOVE_EMBEDDINGS = [(name, 1) for name in ("coral", "dan", "cdan", "mdd", "afn", "bsp")]
MOVE_HEADS = [(name, 0) for name in ("information_maximisation", "self_training")]


@pytest.mark.parametrize(("term", "number"), [("dann", 1), ("mcc", 0), *slow(*MOVE_EMBEDDINGS, *MOVE_HEADS)])
def test_terms_that_move_embeddings_alone_are_refused_where_they_stay(term, number):
    frozen = ["objective.alpha=1", "strategy=frozen", "backbone.weights=source"]
    assert len(problems(f"term=[{term}]", *frozen)) == number


@pytest.mark.parametrize(
    ("override", "said"),
    one_in(
        3,
        [
            ("backbone=lenet", "this backbone takes none"),
            ("data.augment=light", "use data.augment=none"),
            ("data.test_shifts=[blur]", "use data.test_shifts=[]"),
            ("training.mixup_alpha=0.2", "use training.mixup_alpha=null"),
            ("task=regression", "needs data.target.label_kind=numbers"),
            ("data.target.label_kind=numbers", "numbers need task=regression"),
            ("data.target.on_bad_sample=skp", "did you mean skip?"),
            ("backbone.width=0", "must be an integer >= 1"),
        ],
    ),
)
def test_what_a_table_cannot_be_asked_for(override, said):
    (problem,) = problems("experiment=tabular_medical", override)
    assert said in problem


def test_batchnorm_is_synchronised_on_gpus_only():
    (problem,) = problems("experiment=resnet_ft", "trainer=ddp_cpu", "trainer.sync_batchnorm=true")
    assert "it is for GPUs; use trainer.sync_batchnorm=false" in problem


def test_a_backbone_for_tables_needs_a_table():
    (problem,) = problems("data=mnist", "backbone=mlp", "strategy=scratch")
    assert "use another backbone, or data=table" in problem


def test_callbacks_and_loggers_of_the_users_own_are_read_where_they_stand():
    for package in ("lightning.pytorch", "pytorch_lightning"):
        monitor = f"_target_: {package}.callbacks.LearningRateMonitor"
        assert problems(f"+callbacks.lr={{{monitor}, logging_interval: step}}", "callbacks.progress=null") == []
        (problem,) = problems(f"+callbacks.lr={{{monitor}, logging_intervl: step}}")
        assert problem.endswith("(did you mean `callbacks.lr.logging_interval`?)")
    assert problems("logger=csv", "+logger.mine={_target_: pytorch_lightning.loggers.CSVLogger, save_dir: x}") == []
    (problem,) = problems("+callbacks.progress.refresh=1")
    assert problem.startswith("`callbacks.progress.refresh`: there is no such key (did you mean")
    (problem,) = problems("+callbacks.mine={_target_: pytorch_lightning.callbacks.EarlyStopping}")
    assert problem.startswith("`callbacks.mine.monitor` has to be given")
    (problem,) = problems("+callbacks.mine={_target_: pytorch_lightning.callbacks.EarlyStoping}")
    assert "did you mean" in problem


def test_what_cannot_be_read_is_said_to_be_unchecked(capsys):
    pytest.importorskip("_cffi_backend")
    assert problems("+callbacks.mine={_target_: _cffi_backend.FFI, x: 1}", "allow=[_cffi_backend]") == []
    said = "Not checked: `callbacks.mine._target_`: `_cffi_backend` has no source in Python\n"
    assert capsys.readouterr().err == said
    assert problems("experiment=resnet_ft") == []
    assert capsys.readouterr().err == ""


def test_arguments_of_an_optimizer_are_checked_where_they_are_given():
    assert problems("+optimizer.options.betas=[0.8,0.9]", "+optimizer.options.eps=1e-6") == []
    found = problems("+optimizer.options.momentum=0.9", "+optimizer.options.eps=tiny", "+optimizer.betas=[0.8,0.9]")
    assert sorted(line.split("`")[1] for line in found) == [
        "optimizer.betas",
        "optimizer.options.eps=tiny",
        "optimizer.options.momentum",
    ]


def test_a_file_of_weights_is_one_whatever_its_ending_and_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg, choices = composed("backbone.weights=foo")
        for name in ("foo.bin", "foo.pth.tar", "foo"):
            ways = (name, f"./{name}", str(tmp_path / name))
            for cfg.backbone.weights in ways:
                assert "there is no such file" in problems_of(cfg, choices)[0]
            (tmp_path / name).touch()
            for cfg.backbone.weights in ways:
                assert problems_of(cfg, choices) == []


def test_the_run_gives_some_arguments_itself():
    expected = "`head.num_outputs`: the run itself gives this argument; leave the key out"
    assert problems("+head.num_outputs=3") == [expected]


STRATEGIES = sorted(path.stem for path in (CONF / "strategy").glob("*.yaml"))


@pytest.mark.parametrize(
    "strategy", ["full", "lora", "scratch", *slow(*sorted({*STRATEGIES} - {"full", "lora", "scratch"}))]
)
def test_every_strategy_but_scratch_needs_pretrained_weights(strategy):
    more = ["strategy.tuner=loha"] if strategy == "peft" else []
    found = problems(f"strategy={strategy}", "backbone.weights=null", *more)
    own = strategy == "zero_shot"  # whose head nothing has taught either
    assert len(found) == (strategy != "scratch") + own, found


def test_the_metric_that_selects_is_one_that_validation_computes():
    for words in (["metric=f1"], ["metric=loss"], ["metric=null"]):
        assert problems(*(f"selection.{word}" for word in words)) == []
    assert problems("task=binary", "task.main_metric=auroc", "selection.metric=auroc") == []
    assert "did you mean f1?" in problems("selection.metric=f11")[0]
    assert "validation does not compute it; it has loss, acc, f1" in problems("selection.metric=auroc")[0]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["averaging=ema"], "`averaging=ema` with `trainer.strategy=fsdp`: it is kept of whole weights"),
        *slow(
            (["term=[l2sp]"], "`term=l2sp` with `trainer.strategy=fsdp`"),
            (["training.compile=true"], "`training.compile=true` with `trainer.strategy=fsdp`"),
            ([], None),
        ),
    ],
)
def test_what_needs_the_whole_network_in_every_process_is_refused_with_shards_of_it(keys, said):
    found = problems("experiment=resnet_ft", "trainer=fsdp", *keys)
    assert [line for line in found if said and said in line] == found
    assert bool(found) == (said is not None)


def test_blocks_are_counted_by_timm_alone():
    keys = ["experiment=resnet_ft", "rates=layer_decay", "rates.unit=block"]
    assert "only timm's say what their blocks are" in problems(*keys)[0]
    assert problems(*keys, "backbone=timm", "backbone.name=resnet18.a1_in1k") == []


@pytest.mark.parametrize(
    ("keys", "said"),
    one_in(
        3,
        [
            (["tags=['']"], "tags of 1 to 64 characters"),
            ([f"tags=[{'x' * 65}]"], "tags of 1 to 64 characters"),
            (["logger.wandb.project=a/b"], "`logger.wandb.project=a/b`: W&B takes no / "),
            ([f"logger.wandb.project={'p' * 129}"], "W&B takes 128 characters"),
            (["trainer.accelerator=cpux"], "must be auto or cpu"),
            (["trainer.devices='0'"], "a number of devices from 1 on"),
            (["trainer.devices=''"], "a number of devices from 1 on"),
            (["trainer.devices=two"], "a number of devices from 1 on"),
            (["trainer.devices=[0,0]"], "names a device twice"),
            (["trainer.devices='1,1'"], "names a device twice"),
            (["trainer.devices=[0,1]", "trainer.accelerator=cpu"], "a CPU has a number of processes"),
            (["trainer=gpu", "trainer.strategy=deepspeed_stage_2"], "use trainer=fsdp, which shards the same"),
            (["trainer=gpu", "trainer.strategy=fsdp_cpu_offload"], "FSDP2 is trainer=fsdp"),
            (["trainer.max_time=12h"], "must be days:hours:minutes:seconds"),
            (["trainer.max_time='01:00:00'"], "must be days:hours:minutes:seconds"),
            (["trainer.limit_train_batches=1.5"], "a whole number of batches"),
        ],
    ),
)
def test_what_libraries_refuse_is_found_before_anything_is_loaded(keys, said):
    (problem,) = problems("experiment=resnet_ft", *keys)
    assert said in problem


@pytest.mark.parametrize(
    "keys",
    [
        ["tags=['']", "logger=csv"],
        ["logger.wandb.project=a/b", "logger.wandb.mode=disabled"],
        ["trainer.devices='2'", "trainer.max_time='00:12:00:00'", "trainer.limit_val_batches=2.0"],
        ["trainer.devices='0,1'", "trainer.accelerator=gpu"],
        ["trainer.devices='1,'", "trainer.accelerator=gpu"],
    ],
)
def test_what_libraries_take_is_taken(keys):
    assert problems("experiment=resnet_ft", *keys) == []
