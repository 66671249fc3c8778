"""--help without heavy imports, and every kind of config error as one message with code 2."""

import subprocess
import sys

import pytest
from lanes import one_in, slow
from train_app import PROJECT

from graft.cli import help as cli
from graft.cli.launch import known_names
from graft.config.renamed import EXPERIMENTS

CONF = PROJECT / "conf"
COMMANDS = list(EXPERIMENTS.values())
RUN_AND_LIST_MODULES = """
import runpy, sys
sys.argv = ["train.py", *sys.argv[1:]]
try:
    runpy.run_path("train.py", run_name="__main__")
except SystemExit as error:
    print("code", error.code)
heavy = ("torch", "pytorch_lightning", "numpy", "matplotlib", "wandb", "hydra", "omegaconf", "yaml")
print("modules", *(name for name in heavy if name in sys.modules))
"""


def run_and_list_modules(*arguments):
    command = [sys.executable, "-c", RUN_AND_LIST_MODULES, *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_option_and_imports_nothing_heavy(flag):
    out = run_and_list_modules("experiment=resnet_ft", flag)
    assert out.endswith("code 0\nmodules\n")
    for path in CONF.glob("*/[!_]*.yaml"):
        if path.parent.name not in ("hydra", "race", "sweep"):
            lines = [line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  ")]
            assert any(line[0].strip("* ") == path.stem or line[1].startswith(path.stem) for line in lines), path
            assert cli.description(path) in out


def test_help_marks_the_defaults():
    lines = cli.help_text(CONF).splitlines()
    start = lines.index("strategy=")
    strategies = lines[start + 1 : lines.index("", start)]
    assert [line.split()[1] for line in strategies if "*" in line[:4]] == ["full"]
    assert any(line.split()[:2] == ["*", "wandb"] for line in lines)


def test_a_description_is_the_first_comment_below_the_package():
    assert cli.description(CONF / "debug" / "fast.yaml").startswith("One batch of everything")


def test_a_config_error_is_told_without_importing_torch():
    out = run_and_list_modules("objective.alpha=7")
    assert "code 2" in out
    assert out.endswith("modules hydra omegaconf yaml\n")


def test_completion_in_a_shell_imports_no_torch(monkeypatch):
    line = "python train.py strategy=lp"
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    out = run_and_list_modules("-sc", "query=bash")
    assert "strategy=lp_ft" in out
    assert out.endswith("modules hydra omegaconf yaml\n")


@pytest.mark.parametrize(
    ("argument", "expected"),
    one_in(
        2,
        [
            ("optimizer.lrr=1", "`optimizer.lrr`: there is no such key or group (did you mean `optimizer.lr`?)"),
            ("head.hidden=[8]", "`head.hidden`: other options of `head` have this key, the chosen one has not."),
            ("backbone.bands=40", "`backbone.bands` is now `backbone.n_mels`"),
            ("~backbone.hop_ms", "`backbone.hop_ms` is now `backbone.hop_length_ms`"),
            ("epochs=3", "did you mean `pretrain.epochs` or `training.epochs`?"),
            ("labels_per_clas=3", "did you mean `data.labels_per_class`?"),
            ("stratgy=full", "did you mean `strategy`?"),
            ("strategy=ful", "`strategy=ful`: there is no such option (did you mean `strategy=full`?)"),
            ("experiment=resnet", "Options of experiment: "),
            ("strategy=full,frozen", "python train.py -m strategy=full,frozen"),
            ("strategy=null", "`strategy=null`: a group needs an option"),
            ("~strategyy", "`strategyy`: there is no such key or group (did you mean `strategy`?)"),
            ("resnet_ft", "resnet_ft"),
            ("optimizer.lr=[1", "cannot be read"),
            ("+optimizer.lr=1", "`+optimizer.lr`: the key exists"),
            ("--config-dir=missing", "missing"),
        ],
    ),
)
def test_hydra_errors_become_one_message(app, argument, expected):
    outcome = app(argument)
    assert outcome.code == 2
    assert expected in outcome.err
    assert "Traceback" not in outcome.err
    assert "HYDRA_FULL_ERROR" not in outcome.err
    assert app.configs == []
    assert app.folders() == []


def test_hydra_full_error_lets_the_traceback_through(app, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(Exception, match="lrr"):
        app("optimizer.lrr=1")


def test_a_broken_yaml_file_is_named(app, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "broken.yaml").write_text("# @package _global_\n# Broken\na: [1\n")
    outcome = app(f"--config-dir={tmp_path / 'conf'}", "experiment=broken")
    assert outcome.code == 2
    assert "broken.yaml" in outcome.err
    assert "Traceback" not in outcome.err


def test_the_environment_is_as_before(app, monkeypatch):
    import os

    app("strategy=ful")
    assert "HYDRA_FULL_ERROR" not in os.environ


def test_known_names_hold_groups_and_keys_of_every_option():
    names = known_names(CONF)
    assert {"strategy", "seed", "optimizer.lr", "strategy.probe_fraction", "logger.wandb.project"} <= set(names)
    assert "pretrain.epochs" in names


def test_help_of_a_group_says_what_its_keys_may_hold_and_imports_nothing_heavy():
    out = run_and_list_modules("--help", "strategy", "training", "optimizer=adamw", "data/domain")
    assert out.endswith("code 0\nmodules yaml\n")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "strategy.r=8 an integer >= 1 # rank of the update" in lines
    assert "with rates=backbone_ratio" in lines
    assert "training.log_every_steps=10 an integer >= 1" in lines
    assert "optimizer.lr=1.0e-3 auto or default or a number > 0" in "\n".join(lines)
    assert "+optimizer.options.amsgrad=false true or false" in lines
    assert "data.target.class_names=[normal, pneumonia] null or a list of texts or integers" in lines


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["stratgy"], "--help stratgy: there is no such group (did you mean strategy?)"),
        (["strategy=lor"], "--help strategy=lor: there is no such option (did you mean strategy=lora?)"),
        (["strategy", "nosuch"], "--help nosuch: there is no such group. Groups: averaging, backbone, "),
    ],
)
def test_help_of_what_there_is_not_is_one_line(capsys, words, message):
    assert cli.show_help(["--help", *words], CONF) == 2
    outcome = capsys.readouterr()
    assert outcome.err.startswith(message)
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


def test_help_of_every_group_knows_what_every_key_may_hold(capsys):
    for group in cli.group_names([CONF]):
        if group != "experiment":
            assert cli.show_help(["--help", group], CONF) == 0
    out = capsys.readouterr().out
    assert "not checked" not in out
    assert "no such argument" not in out


@pytest.mark.parametrize("old", EXPERIMENTS)
def test_a_removed_experiment_is_answered_with_its_command(app, old):
    outcome = app(f"experiment={old}")
    assert outcome.code == 2
    assert outcome.err == f"`experiment={old}` is now `{EXPERIMENTS[old]}`.\n"


@pytest.mark.parametrize("command", [COMMANDS[0], *slow(*COMMANDS[1:])])
def test_the_command_of_a_removed_experiment_runs(app, command):
    assert app(*command.split()).code == 0
