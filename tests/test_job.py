"""A job's run folder, what it does when it is not the first in there, and how it ends."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import yaml
from hydra.conf import HydraConf
from hydra.types import RunMode
from lanes import one_in, slow
from omegaconf import OmegaConf
from train_app import PROJECT

from graft.cli import job
from graft.errors import Diverged, GraftError, Interrupted
from graft.runs import record


def raises(error):
    def behave(cfg):
        raise error

    return behave


def test_a_run_leaves_its_config_its_overrides_and_done(app):
    outcome = app("experiment=resnet_ft", "optimizer.lr=0.5")
    (folder,) = app.folders()
    assert outcome.code == 0
    assert folder.parent.parent.name == "resnet_ft"
    assert {path.name for path in folder.iterdir()} == {
        ".graft.json",
        "config.yaml",
        "overrides.yaml",
        "checkpoints",
        "results.json",
        "DONE",
    }
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 0.5
    assert config["paths"]["run_dir"] == str(folder)
    assert "hydra" not in config
    assert "${" not in (folder / "config.yaml").read_text()
    assert yaml.safe_load((folder / "overrides.yaml").read_text()) == ["experiment=resnet_ft", "optimizer.lr=0.5"]
    assert app.configs[0].data.seed == app.configs[0].seed == 0


@pytest.mark.slow
def test_two_runs_at_once_have_folders_of_their_own(app):
    app("experiment=resnet_ft")
    app("experiment=resnet_ft")
    assert len(app.folders()) == 2


def test_a_finished_run_is_not_run_again(app, tmp_path):
    app(f"hydra.run.dir={tmp_path / 'a b'}")
    outcome = app(f"hydra.run.dir={tmp_path / 'a b'}")
    assert outcome.code == 0
    assert "Already done, skipped" in outcome.out
    assert app.configs == []


@pytest.mark.slow
def test_a_finished_run_of_another_configuration_is_refused_and_kept(app, tmp_path):
    app(f"hydra.run.dir={tmp_path / 'run'}")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    outcome = app(f"hydra.run.dir={tmp_path / 'run'}", "seed=1")
    assert outcome.code == 2
    assert "differs in seed: 0 -> 1" in outcome.err
    assert app.configs == []
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}


def test_a_finished_run_goes_on_with_resume(app, tmp_path):
    app(f"hydra.run.dir={tmp_path / 'run'}")
    outcome = app(f"hydra.run.dir={tmp_path / 'run'}", "training.epochs=40", "resume=true")
    assert outcome.code == 0
    assert app.configs[0].resume is True
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_run_that_only_tunes_is_done_without_a_score(app, monkeypatch, tmp_path):
    def tuned(cfg):
        results = {
            "tuning": {"lr": {"value": 0.1, "suggestion": "valley", "suggestions": {"valley": 0.1}}},
            "metrics": {},
        }
        (Path(cfg["paths"]["run_dir"]) / "results.json").write_text(json.dumps(results))
        return results

    monkeypatch.setitem(sys.modules, "graft.commands.tune", types.SimpleNamespace(tune=tuned))
    for words in ("", "Already done, skipped"):
        outcome = app("tune=lr", f"hydra.run.dir={tmp_path / 'run'}")
        assert outcome.code == 0, outcome.err
        assert words in outcome.out
    assert (tmp_path / "run" / "DONE").exists()


def test_a_failing_run_leaves_its_traceback_and_no_done(app):
    app.behave = raises(RuntimeError("shapes do not match"))
    outcome = app("seed=3")
    (folder,) = app.folders()
    assert outcome.code == 1
    assert "FAILED seed=3\nRuntimeError: shapes do not match" in outcome.err
    assert "Traceback" not in outcome.err
    assert "Traceback" in (folder / "error.txt").read_text()
    assert not (folder / "DONE").exists()


@pytest.mark.slow
def test_a_run_that_diverged_is_finished_and_not_run_again(app, tmp_path):
    app.behave = diverge
    folder = f"hydra.run.dir={tmp_path / 'run'}"
    first = app("experiment=resnet_ft", folder)
    assert first.code == 1
    assert "the training loss is nan" in first.err
    assert "Traceback" not in first.err
    assert (tmp_path / "run" / "DONE").exists()
    assert not (tmp_path / "run" / "error.txt").exists()
    second = app("experiment=resnet_ft", folder)
    assert (second.code, app.configs) == (1, [])
    assert "Diverged before, not run again" in second.err
    app.behave = lambda cfg: None
    assert app("experiment=resnet_ft", folder, "optimizer.lr=1e-4").code == 2
    assert app("experiment=resnet_ft", folder, "optimizer.lr=1e-4", "resume=true").code == 0


def diverge(cfg):
    """Ends as a training that diverged does: with results, which have no score."""
    results = {"status": "diverged", "message": "Diverged: the training loss is nan\nWhat to do: ..."}
    (Path(cfg.paths.run_dir) / "results.json").write_text(json.dumps(results))
    raise Diverged(results["message"])


def test_a_system_exit_is_a_failure(app):
    app.behave = raises(SystemExit(0))
    assert app("experiment=resnet_ft").code == 1
    assert "SystemExit" in (app.folders()[0] / "error.txt").read_text()


def test_a_mistake_that_only_the_data_shows_has_code_2(app):
    app.behave = raises(GraftError("data.target.root: there is no such folder"))
    outcome = app("experiment=resnet_ft")
    assert outcome.code == 2
    assert "there is no such folder" in outcome.err
    assert (app.folders()[0] / "error.txt").read_text() == "data.target.root: there is no such folder\n"


def test_a_mistake_in_the_config_leaves_no_folder(app):
    outcome = app("objective.alpha=7")
    assert outcome.code == 2
    assert "objective.alpha=7" in outcome.err
    assert app.folders() == []


@pytest.mark.parametrize("error", [Interrupted("Saved last.ckpt"), KeyboardInterrupt()])
def test_an_interrupted_run_says_how_to_go_on_and_does(app, error):
    app.behave = raises(error)
    outcome = app("experiment=resnet_ft", "seed=2")
    (folder,) = app.folders()
    command = next(line for line in outcome.err.splitlines() if line.startswith("Go on with: ")).split(": ", 1)[1]
    assert outcome.code == 130
    assert not (folder / "error.txt").exists()
    app.behave = lambda cfg: None
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", "train.py")
    assert app(*arguments).code == 0
    assert app.configs[0].resume is True
    assert app.configs[0].seed == 2
    assert (folder / "DONE").exists()


def test_an_unfinished_run_is_not_overwritten(app, tmp_path):
    app.behave = raises(KeyboardInterrupt())
    app(f"hydra.run.dir={tmp_path / 'run'}")
    outcome = app(f"hydra.run.dir={tmp_path / 'run'}")
    assert outcome.code == 2
    assert "resume=true" in outcome.err


def test_resume_auto_begins_goes_on_and_skips_with_one_command(app, tmp_path):
    command = ["resume=auto", f"hydra.run.dir={tmp_path / 'run'}"]
    app.behave = raises(Interrupted("Stopped by SIGTERM. Saved last.ckpt", signal.SIGTERM))
    first = app(*command)
    assert (first.code, app.configs[0].resume) == (143, None)
    assert f"Go on with: python train.py resume=auto hydra.run.dir={tmp_path / 'run'}\n" in first.err
    app.behave = raises(RuntimeError("the node's disk is gone"))
    assert app(*command).code == 1
    app.behave = lambda cfg: None
    second = app(*command)
    assert (second.code, app.configs[0].resume) == (0, True)
    assert "Going on from" in second.out
    third = app(*command)
    assert (third.code, app.configs) == (0, [])
    assert "Already done, skipped" in third.out


@pytest.mark.slow
def test_resume_auto_goes_on_with_the_same_configuration_only(app, tmp_path):
    command = ["resume=auto", f"hydra.run.dir={tmp_path / 'run'}"]
    app.behave = raises(KeyboardInterrupt())
    app(*command)
    other = app(*command, "seed=1")
    assert (other.code, app.configs) == (2, [])
    assert "differs in seed: 0 -> 1" in other.err
    assert "resume=true" in other.err
    app.behave = lambda cfg: None
    app(*command)
    finished = app(*command, "seed=1")
    assert (finished.code, app.configs) == (2, [])
    assert "holds a finished run of another configuration" in finished.err


@pytest.mark.parametrize(("flags", "key"), [([], "hydra.run.dir="), *slow((["-m"], "hydra.sweep.dir="))])
def test_resume_auto_needs_a_folder_that_stays(app, flags, key):
    outcome = app(*flags, "resume=auto", "seed=0,1" if flags else "seed=0")
    assert (outcome.code, app.configs) == (2, [])
    assert f"Name the folder: {key}" in outcome.err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_schedulers_signal_outside_of_training_ends_the_job_once(app, name):
    def behave(cfg):
        try:
            signal.raise_signal(getattr(signal, name))
        finally:
            signal.raise_signal(signal.SIGTERM)  # also from the process group, while it cleans up

    handlers = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1)]
    app.behave = behave
    outcome = app("name=waits")
    assert outcome.code == 143
    assert outcome.err.startswith(f"Stopped by {name}.\nGo on with: ")
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGUSR1)] == handlers


@pytest.mark.parametrize(
    ("job", "signum", "overrides", "asked", "printed"),
    one_in(
        3,
        [
            ({"SLURM_JOB_ID": "12"}, signal.SIGUSR1, ["resume=auto"], "requeue 12\n", "SLURM job 12 is requeued"),
            (
                {"SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "14", "SLURM_ARRAY_TASK_ID": "3"},
                *(signal.SIGUSR1, ["resume=auto"], "requeue 14_3\n", "SLURM job 14_3 is requeued"),
            ),
            ({"SLURM_JOB_ID": "12"}, signal.SIGTERM, ["resume=auto"], "", "Stopped by SIGTERM"),
            ({"SLURM_JOB_ID": "12"}, signal.SIGUSR1, [], "", "Stopped by SIGUSR1"),
            ({}, signal.SIGUSR1, ["resume=auto"], "", "Stopped by SIGUSR1"),
            (
                {"SLURM_JOB_ID": "refused"},
                signal.SIGUSR1,
                ["resume=auto"],
                "requeue refused\n",
                "scontrol requeue refused: no",
            ),
        ],
    ),
)
def test_a_slurm_job_that_goes_on_by_itself_is_requeued(
    app, tmp_path, monkeypatch, job, signum, overrides, asked, printed
):
    log, scontrol = tmp_path / "asked", tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    log.touch()
    lock = tmp_path / "run" / ".graft.lock"
    scontrol.write_text(
        f'#!/bin/sh\n[ -e {lock} ] && echo locked >> {log}\necho "$@" >> {log}\n'
        '[ "$2" = refused ] && echo no >&2 && exit 1\nexit 0\n'
    )
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(scontrol.parent), prepend=os.pathsep)
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    app.behave = lambda cfg: signal.raise_signal(signum)
    outcome = app(*overrides, f"hydra.run.dir={tmp_path / 'run'}")
    assert outcome.code == 143
    assert printed in outcome.err
    assert log.read_text() == asked


def test_a_job_restores_environment_arguments_and_ctrl_c(app):
    def behave(cfg):
        os.environ["LOCAL_RANK"] = "0"
        sys.argv.append("more")
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    app.behave = behave
    handler = signal.getsignal(signal.SIGINT)
    app()
    assert "LOCAL_RANK" not in os.environ
    assert sys.argv == ["train.py"]
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.slow
def test_processes_beside_the_main_one_write_nothing(app, monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    app.train = lambda cfg: None
    sys.modules["graft.run"].train = lambda cfg: {"score": {"value": 0.0}}
    assert app(f"hydra.run.dir={tmp_path / 'run'}").code == 0
    assert list((tmp_path / "run").iterdir()) == []


def test_a_mistake_ends_every_process_and_is_printed_by_one(app, monkeypatch, tmp_path):
    command = ["optimizer.lr=abc", f"hydra.run.dir={tmp_path / 'run'}"]
    assert "`optimizer.lr=abc`" in app(*command).err
    monkeypatch.setenv("RANK", "1")
    outcome = app(*command)
    assert (outcome.code, outcome.err) == (2, "")
    assert not app.configs


@pytest.mark.slow
def test_processes_that_lightning_starts_run_this_job_in_this_folder(app, tmp_path):
    seen = []

    def behave(cfg):
        from hydra.core.hydra_config import HydraConfig

        seen.append((list(sys.argv), HydraConfig.get().run.dir))

    app.behave = behave
    app("-m", "seed=4,5", "experiment=resnet_ft", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    for seed, (arguments, folder), cfg in zip((4, 5), seen, app.configs, strict=True):
        assert arguments == ["train.py", f"seed={seed}", "experiment=resnet_ft", "hydra.mode=RUN"]
        assert folder == cfg.paths.run_dir


@pytest.mark.slow
def test_a_soups_run_folder_has_the_config_of_the_jobs(app, monkeypatch, tmp_path):
    app.more = {"data": {}, "weights": {"source": "imagenet"}}
    sweep = tmp_path / "sweep"
    app("-m", "experiment=resnet_ft", "seed=4,5", "optimizer.lr=0.5", f"hydra.sweep.dir={sweep}")
    monkeypatch.setitem(sys.modules, "graft.commands.soup", types.SimpleNamespace(soup=app.train))
    outcome = app(f"soup={sweep}", "logger=csv", f"hydra.run.dir={tmp_path / 'soup'}")
    assert outcome.code == 0, outcome.err
    config = yaml.safe_load((tmp_path / "soup" / "config.yaml").read_text())
    assert (config["optimizer"]["lr"], config["backbone"]["weights"], config["seed"]) == (0.5, "source", 4)
    assert (config["name"], list(config["logger"]), config["soup"]) == ("train", ["csv"], str(sweep))
    assert config["paths"]["run_dir"] == str(tmp_path / "soup")
    assert "Already done" in app(f"soup={sweep}", "logger=csv", f"hydra.run.dir={tmp_path / 'soup'}").out

    refused = app(f"soup={sweep}", "optimizer.lr=1", f"hydra.run.dir={tmp_path / 'other'}")
    assert refused.code == 2
    assert "`optimizer.lr` with `soup=`" in refused.err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["a=b,{c}", *slow("with space", "it's")])
def test_the_resume_command_survives_odd_folder_names(app, tmp_path, name):
    folder = tmp_path / name
    app.behave = raises(KeyboardInterrupt())
    outcome = app(f"hydra.run.dir={job.quoted(folder)}")
    assert Path(app.configs[0].paths.run_dir) == folder
    command = outcome.err.splitlines()[-1].split(": ", 1)[1]
    assert f"hydra.run.dir={job.quoted(folder)}" in shlex.split(command)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("more", [[], ["resume=true", "hydra.output_subdir=.hydra"]])
def test_a_strangers_folder_is_refused_and_stays_as_it_was(app, tmp_path, more):
    project = tmp_path / "my project"
    (project / "checkpoints").mkdir(parents=True)
    (project / "config.yaml").write_text("model: mine\n")
    (project / "checkpoints" / "precious.pt").write_text("precious")
    before = contents(tmp_path)
    outcome = app(f"hydra.run.dir={job.quoted(project)}", *more)
    assert (outcome.code, app.configs) == (2, [])
    assert f"{project} is no run's folder of Graft's: it holds checkpoints, config.yaml, but no" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert contents(tmp_path) == before
    assert app(*shlex.split(re.search("such as (.+), or leave", outcome.err)[1])).code == 0
    assert contents(project).items() >= {Path("config.yaml"): b"model: mine\n"}.items()


def test_a_file_is_no_run_folder(app, tmp_path):
    (tmp_path / "file").touch()
    outcome = app(f"hydra.run.dir={tmp_path / 'file'}")
    assert (outcome.code, f"{tmp_path / 'file'} is no folder" in outcome.err) == (2, True)


@pytest.mark.slow
def test_what_a_stranger_puts_into_a_run_folder_survives_a_fresh_start(app, tmp_path):
    app.behave = raises(RuntimeError("first"))
    run = tmp_path / "run"
    app(f"hydra.run.dir={run}")
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "checkpoints" / "precious.pt").write_text("precious")
    (run / "notes.txt").write_text("mine")
    app.behave = lambda cfg: None
    assert app(f"hydra.run.dir={run}", "seed=1").code == 0
    assert (run / "checkpoints" / "precious.pt").read_text() == "precious"
    assert (run / "notes.txt").read_text() == "mine"
    assert not (run / "error.txt").exists()


def older(app, run, *, done):
    """A run folder as a Graft without records left it."""
    app.behave = (lambda cfg: None) if done else raises(KeyboardInterrupt())
    app(f"hydra.run.dir={run}")
    (run / ".graft.json").unlink()
    app.behave = lambda cfg: None
    return contents(run)


@pytest.mark.slow
def test_a_finished_run_of_an_older_graft_is_skipped_and_not_started_anew(app, tmp_path):
    run = tmp_path / "run"
    before = older(app, run, done=True)
    assert "Already done, skipped" in app(f"hydra.run.dir={run}").out
    assert app(f"hydra.run.dir={run}", "seed=1").code == 2
    assert contents(run) == before
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "DONE").unlink()
    before = contents(run)
    outcome = app(f"hydra.run.dir={run}")
    assert (outcome.code, "is the folder of an older Graft's run" in outcome.err) == (2, True)
    assert contents(run) == before


@pytest.mark.slow
def test_an_unfinished_run_of_an_older_graft_goes_on_and_nothing_is_removed(app, tmp_path):
    run = tmp_path / "run"
    before = older(app, run, done=False)
    assert app(f"hydra.run.dir={run}", "resume=true").code == 0
    assert before.keys() <= contents(run).keys()
    assert json.loads((run / ".graft.json").read_text())["adopted"] is True


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), *slow(SystemExit(3), KeyboardInterrupt(), Interrupted("saved")), None]
)
def test_a_folder_is_locked_while_its_job_runs_and_not_after(app, tmp_path, error):
    seen = []

    def behave(cfg):
        seen.append((tmp_path / "run" / ".graft.lock").exists())
        if error:
            raise error

    app.behave = behave
    app(f"hydra.run.dir={tmp_path / 'run'}")
    assert seen == [True]
    assert not list((tmp_path / "run").glob(".graft.lock*"))


def waiting_script(tmp_path):
    """train.py with a training that says it is ready and waits for a line of input."""
    script = tmp_path / "wait.py"
    script.write_text(
        "import json, sys, time, types\n"
        "from pathlib import Path\n"
        "def train(cfg):\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    results = {'score': {'metric': 'm', 'value': cfg['seed'], 'higher_is_better': True}, 'metrics': {},\n"
        "               'parameters': {}, 'time': {}, 'seeds': {'train': cfg['seed']}}\n"
        "    Path(cfg['paths']['run_dir'], 'results.json').write_text(json.dumps(results))\n"
        "    return results\n"
        "sys.modules['graft.run'] = types.SimpleNamespace(train=train)\n"
        f"sys.path.insert(0, {str(PROJECT)!r})\n"
        "import train\n"
        "sys.exit(train.main())\n"
    )

    def start(*arguments):
        return subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=os.environ | {"GRAFT_ROOT": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.mark.parametrize(("flags", "gap"), [([], 0), *slow(([], None), (["-m"], 0), (["-m"], None))], ids=str)
def test_of_two_processes_in_one_folder_one_runs_and_the_other_is_refused(tmp_path, flags, gap):
    start, folder = waiting_script(tmp_path), tmp_path / "run"
    where = f"hydra.sweep.dir={folder}" if flags else f"hydra.run.dir={folder}"
    first = start(*flags, "seed=1", where)
    if gap is None:
        first.stdout.readline()
    else:
        time.sleep(gap)
    second = start(*flags, "seed=2", where)
    # The one that is refused ends by itself, the other one waits for its input.
    while first.poll() is None and second.poll() is None:
        time.sleep(0.02)
    refused, ran = (first, second) if first.poll() is not None else (second, first)
    _, err = refused.communicate()
    _, ran_err = ran.communicate("\n")
    assert (refused.returncode, ran.returncode, ran_err) == (2, 0, "")
    assert f"{folder} is in use by process {ran.pid} on {socket.gethostname()}" in err
    assert (gap is None) <= (ran is first)
    results = [json.loads(path.read_text())["seeds"]["train"] for path in folder.rglob("results.json")]
    assert results == [1 if ran is first else 2]
    assert not list(folder.rglob(".graft.lock*"))


@pytest.mark.slow
def test_a_killed_run_goes_on_at_once(tmp_path):
    start, folder = waiting_script(tmp_path), tmp_path / "run"
    killed = start(f"hydra.run.dir={folder}")
    assert killed.stdout.readline() == "ready\n"
    killed.kill()
    again = start(f"hydra.run.dir={folder}", "resume=true")
    out, err = again.communicate("\n")
    assert (again.returncode, err) == (0, "")
    assert f"going on where process {killed.pid} on " in out
    killed.communicate()


@pytest.mark.slow
def test_ctrl_c_ends_the_process_with_130(tmp_path):
    with waiting_script(tmp_path)("name=waits") as process:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == "Interrupted.\n"


@pytest.mark.parametrize(
    ("rule", "sweeper", "refused"),
    [
        ("last.Last", "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", True),
        ("ensemble.Ensemble", "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", True),
        ("entropy.Entropy", "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", False),
        ("budget.Budget", "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper", False),
        ("last.Last", "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", False),
    ],
)
def test_an_optimising_sweeper_never_sees_a_test_score(rule, sweeper, refused):
    hydra = HydraConf(mode=RunMode.MULTIRUN, sweeper={"_target_": sweeper})
    hydra.runtime.choices = {"selection": "chosen"}
    settings = {"selection": {"_target_": f"graft.selection.{rule}"}, "tune": None}
    if refused:
        with pytest.raises(GraftError, match=r"`selection=chosen` with the sweeper .*Use selection=target_val"):
            job.check_followed(hydra, settings)
    else:
        job.check_followed(hydra, settings)
    assert record.value_of({"score": {"value": 0.9}, "selection": {"value": None}}) is None


def test_the_config_is_written_as_omegaconf_writes_it():
    settings = {
        "words": ["1e-3", "yes", "12", "null", "Grün", "", "a: b", "two\nlines"],
        "numbers": [1, 1e-3, 1e30, True, None],
        "empty": {"mapping": {}, "list": []},
        "inner": [{"a": [[1], [2]]}],
    }
    assert job.yaml_of(settings) == OmegaConf.to_yaml(OmegaConf.create(settings))


def test_a_container_that_stands_twice_is_written_twice():
    same = {"a": 1}
    assert "&" not in job.yaml_of({"one": same, "two": same})
