"""What somebody reads who types Graft's first commands: where to start, and what a mistake is called."""

import shlex
import subprocess
import sys

import pytest
from lanes import slow
from test_cli import run_and_list_modules
from train_app import PROJECT, App

from graft.cli import arguments
from graft.cli import help as cli
from graft.cli.main import main
from graft.cli.program import program
from graft.errors import GraftError

CONF = PROJECT / "conf"
OWN = ("my_photos", "my_table", "my_texts", "my_recordings")


@pytest.fixture
def app(tmp_path, monkeypatch, capsys):
    return App(tmp_path, monkeypatch, capsys)


def test_no_argument_shows_where_to_start_and_imports_nothing_heavy():
    out = run_and_list_modules()
    assert out == f"{cli.START}{cli.SEE_HELP}\ncode 0\nmodules\n"
    assert all(f"experiment={name}" in out for name in OWN)


def test_help_begins_with_where_to_start():
    assert cli.help_text(CONF).startswith(cli.START)


@pytest.mark.slow
def test_every_command_of_the_start_page_is_a_config_that_passes_the_check(app, tmp_path):
    commands = [line.split("  ")[1] for line in cli.START.splitlines() if line.startswith("  python")]
    assert len(commands) == 6
    for command in commands:
        words = command.split()[2:]
        outcome = app(*words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
        assert (outcome.code, outcome.err) == (0, ""), command
        assert app.configs


@pytest.mark.parametrize(
    ("typed", "named"),
    [("graft", "graft train"), ("graft/__main__.py", "python -m graft train"), ("train.py", "python train.py")],
)
def test_messages_name_the_program_that_was_used(monkeypatch, capsys, typed, named):
    monkeypatch.setattr(sys, "argv", [typed])
    assert program() == named
    main(["train", "optimizer.lrr=1"])
    assert f"`{named} --help`" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["term=[dann,dann]", "term=[dann],[mcc,'coral',coral]", "+logger=[csv,csv]"])
def test_an_option_that_is_named_twice_is_refused(word):
    with pytest.raises(GraftError, match="named twice"):
        arguments.typed([word, "-m"], list)
    again = word.replace("dann,dann", "dann").replace("'coral',", "").replace("csv,csv", "csv")
    assert arguments.typed([again, "-m"], list) == [again, "-m"]


@pytest.mark.parametrize("words", [["train", "--help"], []])
def test_a_reader_that_stops_early_is_no_error(words):
    command = f"{shlex.quote(sys.executable)} -m graft {' '.join(words)} | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Graft")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--epochs", "3"], "`--epochs 3`: a setting is typed key=value, without dashes or spaces"),
        (["--epochs=3"], "training.epochs=3 or pretrain.epochs=3"),
        (["epochs", "3"], "training.epochs=3"),
        (["my_photos"], "python train.py experiment=my_photos"),
    ],
)
def test_flags_and_words_are_answered_with_what_to_type(app, words, expected):
    outcome = app(*words)
    assert (outcome.code, app.configs) == (2, [])
    assert expected in outcome.err


@pytest.mark.parametrize(
    "name", ["it's [x] {y}", "~/photos (1)", *slow("photos (1)", "a=b", "a,b", "back\\slash", "täglich #1")]
)
def test_paths_are_taken_as_they_are(app, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path))
    app("experiment=my_photos", f"data.target.root={name}")
    assert app.configs[0].data.target.root == name.replace("~", str(tmp_path))


@pytest.mark.slow
def test_commas_separate_the_paths_of_a_sweep_unless_there_is_such_a_file(app, tmp_path, monkeypatch):
    words = ["-m", "experiment=my_table", "data.target.label=y", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    app(*words, "data.target.file=a (1).csv,b.csv")
    assert [cfg.data.target.file for cfg in app.configs] == ["a (1).csv", "b.csv"]
    (tmp_path / "c,d.csv").touch()
    app(*words, f"data.target.file={tmp_path / 'c,d.csv'}")
    assert app.configs[0].data.target.file == str(tmp_path / "c,d.csv")


def test_what_is_quoted_already_or_no_path_is_left_alone():
    for word in ("data.target.root='a b'", "data.target.root=${x}", "objective.alpha=0,1", "term=[l2sp]", "notes=(1)"):
        assert arguments.quoted_path(word) == word


@pytest.mark.slow
def test_a_key_that_only_the_experiment_sets_is_traced_to_it(app):
    def refuse(cfg):
        raise GraftError("data.bucket_by_length=true: table data have no length. Set data.bucket_by_length=false.")

    app.behave = refuse
    traced = "`data.bucket_by_length`: set by experiment=bert_sentiment"
    assert traced in app("experiment=bert_sentiment").err
    assert traced not in app("experiment=bert_sentiment", "data.bucket_by_length=true").err


def test_a_gpu_that_is_not_there_is_named():
    import torch

    from graft.training.trainer import check_accelerator

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    check_accelerator("auto")
    with pytest.raises(GraftError, match=r"there is no GPU here; torch .* Use trainer=auto"):
        check_accelerator("gpu")


def test_a_file_that_holds_no_weights_is_called_so(tmp_path):
    from graft.weights.loading import read_tensors

    page = tmp_path / "weights.pt"
    page.write_text("<!DOCTYPE html>\n<html>not found</html>")
    with pytest.raises(GraftError, match=r"is not a file of weights: .* begins with b'<!DOCTYPE html>'"):
        read_tensors(page)


def test_a_run_has_one_folder(app, tmp_path):
    outcome = app("experiment=resnet_ft", f"paths.run_dir={tmp_path}")
    assert (outcome.code, app.configs) == (2, [])
    assert f"hydra.run.dir={tmp_path}" in outcome.err


@pytest.mark.parametrize(
    "word", ["optimizer.options={betas:[0.5,0.99]}", "optimizer.options.betas=[0.5,0.99]", "optimizer.options={}"]
)
def test_a_key_of_an_open_mapping_needs_no_sign(app, word):
    assert app("optimizer=adam", word).code == 0
    (config,) = app.configs
    assert config.optimizer.options == ({"betas": [0.5, 0.99]} if "betas" in word else {})
    assert "there is no such key" in app("optimizer=adam", "optimizer.options.betaz=1").err


def test_a_key_inside_of_a_mapping_is_told_by_its_own_name(app):
    assert "`training.epochz`: there is no such key or group (did you mean `training.epochs`?)" in (
        app("training={epochz:3}").err
    )
