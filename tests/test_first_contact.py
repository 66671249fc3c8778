"""What somebody reads who types Graft's first commands: where to start, and what a mistake is called."""

import subprocess
import sys

import pytest
from test_cli import run_and_list_modules
from train_app import PROJECT, App

from graft.cli import help as cli
from graft.cli.main import main
from graft.cli.program import program

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


@pytest.mark.parametrize("words", [["train", "--help"], []])
def test_a_reader_that_stops_early_is_no_error(words):
    command = f"{sys.executable} -m graft {' '.join(words)} | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Graft")
