"""A sweep's summary, its exit code, and what the same folder does the second time."""

import csv
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lanes import slow
from train_app import PROJECT

from graft.errors import Diverged, Interrupted
from graft.report import summary as sweep
from graft.runs import sweep_plan


def write_job(
    folder, overrides, score=None, error=None, done=True, higher_is_better=True, metrics=None, val=None, **more
):
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if error:
        (folder / "error.txt").write_text(error)
    if score is not None:
        seed = next((int(line[5:]) for line in overrides if line.startswith("seed=")), 0)
        results = {
            "score": {"metric": "test/target/acc", "value": score, "higher_is_better": higher_is_better},
            "metrics": {"test/target/acc": score, "test/target/loss": 1 - score} | (metrics or {}),
            "parameters": {"total": 3000, "trainable": 2000},
            "time": {"fit_s": 10.0 + score, "total_s": 20.0},
            "seeds": {"train": seed},
            **more,
        }
        if val is not None:
            results["selection"] = {"monitor": "val/target/acc", "value": val}
        (folder / "results.json").write_text(json.dumps(results))
        if done:
            (folder / "DONE").touch()


def read_csv(folder):
    with (folder / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_seeds_are_folded_and_the_best_comes_first(tmp_path, capsys):
    for index, (strategy, seed, score) in enumerate(
        [
            ("full", 0, 0.7),
            ("full", 1, 0.8),
            ("full", 2, 0.9),
            ("frozen", 0, 0.95),
            ("frozen", 1, 0.75),
            ("scratch", 0, 0.4),
        ]
    ):
        write_job(tmp_path / f"{index}", [f"seed={seed}", f"strategy={strategy}", "experiment=x"], score)
    rows = sweep.summarise(tmp_path)
    lines = read_csv(tmp_path)
    assert [line["strategy"] for line in lines] == ["frozen", "full", "scratch"]
    assert [int(line["count"]) for line in lines] == [2, 3, 1]
    full = lines[1]
    assert float(full["mean"]) == pytest.approx(0.8)
    assert float(full["std"]) == pytest.approx(0.1)
    # t(0.975, 2 degrees of freedom) = 4.302653 from a printed table
    assert float(full["ci95_high"]) - 0.8 == pytest.approx(4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert float(full["ci95_low"]) == pytest.approx(1.6 - float(full["ci95_high"]))
    assert full["seeds"] == "0 1 2"
    assert float(full["fit_s"]) == pytest.approx(10.8)
    assert float(full["trainable"]) == 2000
    assert float(full["mean test/target/loss"]) == pytest.approx(0.2)
    assert lines[2]["std"] == lines[2]["ci95_low"] == ""
    assert len(rows) == 3
    text = (tmp_path / "summary.md").read_text()
    assert "All jobs: `experiment=x`" in text
    out = capsys.readouterr().out
    assert "| full     | 0.8000 ± 0.1000 |" in out
    assert out.splitlines()[-1] == str(tmp_path)


def test_the_order_is_by_validation_and_not_by_test(tmp_path, capsys):
    for name, score, val in (("a", 0.9, 0.6), ("b", 0.7, 0.8), ("c", 0.8, 0.7)):
        write_job(tmp_path / name, [f"strategy={name}"], score, val=val)
    assert [row.overrides["strategy"] for row in sweep.summarise(tmp_path)] == ["b", "c", "a"]
    assert "| b        | 0.8000                 | 0.7000" in capsys.readouterr().out


def test_without_a_selected_checkpoint_in_every_job_the_order_is_by_test(tmp_path):
    write_job(tmp_path / "a", ["strategy=a"], 0.9, val=0.1)
    write_job(tmp_path / "b", ["strategy=b"], 0.95)
    assert [row.overrides["strategy"] for row in sweep.summarise(tmp_path)] == ["b", "a"]


def test_lower_is_better_for_errors(tmp_path):
    write_job(tmp_path / "a", ["optimizer.lr=1"], 3.0, higher_is_better=False)
    write_job(tmp_path / "b", ["optimizer.lr=2"], 2.0, higher_is_better=False)
    sweep.summarise(tmp_path)
    assert [line["optimizer.lr"] for line in read_csv(tmp_path)] == ["2", "1"]


def test_failed_and_unfinished_jobs_are_shown_and_do_not_count(tmp_path, capsys):
    traceback = 'Traceback (most recent call last):\n  File "x.py", line 1\n    f()\nValueError: bad value\n'
    write_job(tmp_path / "a", ["seed=0"], 0.5)
    write_job(tmp_path / "b", ["seed=1"], error=traceback)
    write_job(tmp_path / "c", ["seed=2"], 0.9, done=False)
    write_job(tmp_path / "d", ["seed=3"], 0.9, error="2 mistakes in the configuration:\n  - `x`: wrong\n")
    sweep.summarise(tmp_path)
    (line,) = read_csv(tmp_path)
    assert [line[name] for name in ("count", "failed", "unfinished", "mean")] == ["1", "2", "1", "0.5"]
    out = capsys.readouterr().out
    assert "FAILED `seed=1`: ValueError: bad value (b/error.txt)" in out
    assert "FAILED `seed=3`: 2 mistakes in the configuration: - `x`: wrong (d/error.txt)" in out
    assert "2 of 4 jobs failed:" in (tmp_path / "summary.md").read_text()


def test_an_error_of_several_jobs_is_one_line_with_what_they_share(tmp_path, capsys):
    for number, (strategy, seed) in enumerate([("full", 0), ("full", 1), ("lora", 0), ("lora", 1), ("lora", 2)]):
        error = "1 mistake:\n  - `strategy`: no peft\n" if strategy == "lora" else "disk full" if seed else None
        write_job(tmp_path / f"{number}", [f"strategy={strategy}", f"seed={seed}", "data=digits"], 0.5, error=error)
    sweep.summarise(tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert lines == [
        "FAILED `strategy=full seed=1 data=digits`: disk full (1/error.txt)",
        "FAILED 3 jobs with `strategy=lora`: 1 mistake: - `strategy`: no peft (first in 2/error.txt)",
    ]
    assert "4 of 5 jobs failed:\n\n- " in (tmp_path / "summary.md").read_text()


def test_a_sweep_says_an_error_of_all_its_jobs_once(app, tmp_path):
    command = ["-m", "experiment=resnet_ft", "training.epochs=-3", "seed=0,1,2"]
    for number in range(2):  # in one process, as in a notebook
        outcome = app(*command, f"hydra.sweep.dir={tmp_path / str(number)}")
        assert outcome.code == 1
        assert outcome.err.count("`training.epochs=-3`: must be an integer >= 1") == 1
        assert "FAILED seed=1: the same error\nFAILED seed=2: the same error\n" in outcome.err
        assert outcome.out.count("must be an integer >= 1") == 1
        assert "FAILED 3 jobs: A mistake in the configuration:" in outcome.out
        assert len([*(tmp_path / str(number)).glob("*/error.txt")]) == 3


def test_a_sweep_in_which_every_job_failed_has_a_summary(tmp_path):
    write_job(tmp_path / "a", ["seed=0"], error="no")
    (row,) = sweep.summarise(tmp_path)
    assert row.mean("time", "fit_s") is None
    assert read_csv(tmp_path)[0]["error"] == "no"


def tuned(folder, overrides, rate, score=None, **more):
    """A job that has looked for a learning rate; without a score it did nothing else."""
    write_job(folder, overrides, score)
    results = json.loads((folder / "results.json").read_text()) if score else {"metrics": {}, "seeds": {"train": 0}}
    suggestions = {"valley": rate, "steep": 2 * rate}
    results["tuning"] = {"lr": {"value": rate, "suggestion": "valley", "suggestions": suggestions}, **more}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "DONE").touch()


def test_a_sweep_that_only_tunes_shows_the_suggestions(tmp_path, capsys):
    for number, (strategy, seed, rate) in enumerate([("full", 0, 1e-3), ("full", 1, 4e-3), ("frozen", 0, 0.01)]):
        tuned(tmp_path / str(number), [f"strategy={strategy}", f"seed={seed}", "tune=lr"], rate)
    write_job(tmp_path / "failed", ["strategy=other", "seed=0", "tune=lr"], error="no")
    sweep.summarise(tmp_path)
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line
    ]
    assert lines[0] == ["strategy", "valley (auto)", "steep", "n", "failed"]
    assert ["full", "0.002 (0.001 to 0.004)", "0.004 (0.002 to 0.008)", "2", ""] in lines
    assert ["frozen", "0.01", "0.02", "1", ""] in lines
    assert ["other", "", "", "0", "1"] in lines
    full = next(line for line in read_csv(tmp_path) if line["strategy"] == "full")
    assert (full["valley (auto)"], full["count"], full["mean"]) == ("0.001 0.004", "0", "")
    assert "optimizer.lr=auto" in (tmp_path / "summary.md").read_text()


def test_what_was_found_stands_beside_the_scores_that_it_gave(tmp_path, capsys):
    tuned(tmp_path / "a", ["strategy=a"], 1e-3, score=0.5, batch_size={"value": 128})
    write_job(tmp_path / "b", ["strategy=b"], 0.75)
    sweep.summarise(tmp_path)
    header, _, first, second = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[1:5]
    )
    assert header[:4] == ["strategy", "batch size", "learning rate", "test/target/acc"]
    assert first[:4] == ["b", "", "", "0.7500"]
    assert second[:4] == ["a", "128", "0.001", "0.5000"]


def test_an_empty_sweep_has_a_summary(tmp_path):
    assert sweep.summarise(tmp_path) == []


def test_the_other_domain_and_forgetting_stand_beside_the_score(tmp_path, capsys):
    write_job(
        tmp_path / "a", ["seed=0"], 0.5, metrics={"test/source/acc": 0.25, "forgetting": 0.125, "val/target/acc": 0.1}
    )
    sweep.summarise(tmp_path)
    header, _, row = capsys.readouterr().out.strip().splitlines()[:3]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        *["test/target/acc", "95 % interval", "n", "test/source/acc", "forgetting", "labels used", "val samples"],
        *["test samples", "trainable", "fit"],
    ]
    assert "0.2500" in row
    assert "0.1250" in row


def test_numbers_of_samples_and_baselines_stand_beside_the_score(tmp_path, capsys):
    for name, seed, value, boosted, tested in (("a", 0, 0.5, 0.75, 1900), ("b", 1, 0.6, 0.85, 1950)):
        metrics = {"val/target/acc": 0.7, "test/target/acc": boosted}
        boosting = {"title": "gradient boosting", "fitted_on": "9 target labels", "metrics": metrics, "seconds": 1.0}
        sizes = {"target": {"val": 180, "test": tested}}
        more = {"baselines": {"boosting": boosting}, "data": sizes, "seeds": {"train": seed}}
        write_job(tmp_path / name, [f"seed={seed}"], value, **more)
    sweep.summarise(tmp_path)
    header, _, row = (tmp_path / "summary.md").read_text().splitlines()[2:5]
    found = dict(zip(*([cell.strip() for cell in line.split("|")[1:-1]] for line in (header, row)), strict=True))
    assert found["val samples"] == "180"
    assert found["test samples"] == "1,900 to 1,950"
    for text in ((tmp_path / "summary.md").read_text(), capsys.readouterr().out):
        (line,) = (line for line in text.splitlines() if line.startswith("| gradient boosting"))
        assert [cell.strip() for cell in line.split("|")[2:-1]] == ["9 target labels", "0.7000", "0.8000", "2", "1.0 s"]


@pytest.mark.slow
def test_a_failing_job_does_not_stop_the_others_and_the_folder_is_completed(app, tmp_path):
    def behave(cfg):
        if cfg["seed"] == 1:
            raise RuntimeError("out of memory")

    app.behave = behave
    command = ["-m", "experiment=resnet_ft", "seed=0,1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    first = app(*command)
    assert first.code == 1
    assert [cfg.seed for cfg in app.configs] == [0, 1, 2]
    assert "FAILED experiment=resnet_ft seed=1\nRuntimeError: out of memory" in first.err
    assert "FAILED `experiment=resnet_ft seed=1`: RuntimeError: out of memory" in first.out

    app.behave = lambda cfg: None
    second = app(*command)
    assert second.code == 0
    assert [cfg.seed for cfg in app.configs] == [1]
    assert app.configs[0].resume is None  # a failed job begins anew
    assert read_csv(tmp_path / "sweep")[0]["count"] == "3"
    assert second.out.count("Already done") == 2


@pytest.mark.slow
def test_jobs_of_two_experiments_share_the_sweeps_folder_and_have_short_names(app):
    outcome = app("-m", "experiment=resnet_ft,resnet_joint")
    (folder,) = app.folders("sweeps")
    jobs = [file.parent for file in folder.glob("*/overrides.yaml")]
    assert outcome.code == 0
    assert len(jobs) == 2
    assert all(len(path.name) == 8 for path in jobs)
    assert {line["experiment"] for line in read_csv(folder)} == {"resnet_ft", "resnet_joint"}


def test_a_config_mistake_in_one_job_is_a_failed_job(app):
    outcome = app("-m", "objective.alpha=0,7")
    assert outcome.code == 1
    assert len(app.configs) == 1
    assert "`objective.alpha=7`: must be" in read_csv(app.folders("sweeps")[0])[1]["error"]


def test_a_sweep_that_cannot_be_composed_begins_no_job(app):
    outcome = app("-m", "strategy=full,ful")
    assert outcome.code == 2
    assert "did you mean `strategy=full`?" in outcome.err
    assert app.configs == []


def test_ctrl_c_ends_the_sweep_with_a_summary_and_the_command_goes_on(app, tmp_path):
    def behave(cfg):
        if cfg["seed"] == 1:
            raise Interrupted("Saved last.ckpt")

    app.behave = behave
    command = ["-m", "seed=0,1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    first = app(*command)
    assert first.code == 130
    assert [cfg.seed for cfg in app.configs] == [0, 1]
    assert read_csv(tmp_path / "sweep")[0]["unfinished"] == "1"
    assert f"hydra.sweep.dir={tmp_path / 'sweep'}" in first.err

    app.behave = lambda cfg: None
    second = app(*command)
    assert second.code == 0
    assert [(cfg.seed, cfg.resume) for cfg in app.configs] == [(1, True), (2, None)]  # the interrupted one goes on


@pytest.mark.slow
@pytest.mark.parametrize("in_job", [True, False])
def test_sigterm_ends_the_sweep_with_a_summary_and_143(app, tmp_path, in_job):
    def behave(cfg):
        from graft.cli import job

        job.STATE.running = in_job  # else as in Hydra's own code between two jobs
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        job.STATE.running = True

    handler = signal.getsignal(signal.SIGTERM)
    app.behave = behave
    outcome = app("-m", "seed=0,1,2", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert outcome.code == 143
    assert len(app.configs) == 1
    assert "The sweep was stopped by SIGTERM. To run what is missing: python train.py -m" in outcome.err
    assert (tmp_path / "sweep" / "summary.csv").exists()
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
def test_ctrl_c_between_jobs_begins_no_further_one(app):
    def behave(cfg):
        from graft.cli import job

        job.STATE.running = False  # as in Hydra's own code between two jobs
        signal.raise_signal(signal.SIGINT)
        job.STATE.running = True

    handler = signal.getsignal(signal.SIGINT)
    app.behave = behave
    assert app("-m", "seed=0,1").code == 130
    assert len(app.configs) == 1
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.slow
def test_a_job_of_another_configuration_in_the_same_folder_is_refused(app, tmp_path, monkeypatch):
    command = ["-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    app(*command)
    for path in (tmp_path / "sweep").glob("*/config.yaml"):  # as if the shipped default had changed since
        path.write_text(path.read_text().replace("epochs: 30", "epochs: 29"))
    outcome = app(*command)
    assert outcome.code == 1
    assert "training.epochs: 29 -> 30" in outcome.err
    assert app.configs == []


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_strangers_folder_is_no_sweeps_folder(app, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "multirun.yaml").write_text("mine: 1\n")
    outcome = app("-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'project'}")
    assert (outcome.code, app.configs) == (2, [])
    assert "is no sweep's folder of Graft's: it holds multirun.yaml" in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert contents(tmp_path) == {Path("project/multirun.yaml"): b"mine: 1\n"}


@pytest.mark.slow
def test_a_strangers_folder_in_a_sweep_is_left_out_and_told(app, tmp_path):
    sweep_folder = tmp_path / "sweep"
    command = ["-m", "seed=0,1", f"hydra.sweep.dir={sweep_folder}", "hydra.sweep.subdir=job_${seed}"]
    app(*command)
    (sweep_folder / "job_1" / ".graft.json").unlink()
    for name in ("overrides.yaml", "DONE"):
        (sweep_folder / "job_1" / name).unlink()
    before = contents(sweep_folder / "job_1")
    outcome = app(*command)
    assert (outcome.code, app.configs) == (2, [])
    assert contents(sweep_folder / "job_1") == before
    assert "FAILED seed=1" in outcome.err
    assert "job_1 is no run's folder of Graft's" in read_csv(sweep_folder)[0]["error"]
    shutil.rmtree(sweep_folder / "job_1")
    assert app(*command).code == 0
    assert [line["count"] for line in read_csv(sweep_folder)] == ["2"]


@pytest.mark.slow
def test_a_sweep_of_an_older_graft_is_completed(app, tmp_path):
    command = ["-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    app.behave = lambda cfg: (_ for _ in ()).throw(Interrupted("saved")) if cfg.seed else None
    app(*command)
    for record in (tmp_path / "sweep").rglob(".graft.json"):
        record.unlink()
    app.behave = lambda cfg: None
    outcome = app(*command)
    assert (outcome.code, [(cfg.seed, cfg.resume) for cfg in app.configs]) == (0, [(1, True)])


PARALLEL = """
import sys
from pathlib import Path
sys.path[:0] = [{project!r}, {tests!r}]

def task(cfg):
    import json, types
    from pathlib import Path
    def train(cfg):
        if cfg["seed"] == 1:
            raise RuntimeError("only here")
        results = {{"score": {{"metric": "m", "value": cfg["seed"], "higher_is_better": True}}, "metrics": {{}},
                   "parameters": {{}}, "time": {{}}, "seeds": {{"train": cfg["seed"]}}}}
        Path(cfg["paths"]["run_dir"], "results.json").write_text(json.dumps(results))
        return results
    sys.modules["graft.run"] = types.SimpleNamespace(train=train)
    from graft.cli.job import run_job
    return run_job(cfg)

if __name__ == "__main__":
    import hydra
    from pathlib import Path
    from graft.cli.hydra_versions import MAIN
    from graft.cli.launch import launch
    conf = Path({project!r}, "conf")
    sys.exit(launch(hydra.main(**MAIN, config_path=str(conf), config_name="train")(task), conf))
"""


@pytest.mark.slow
def test_a_parallel_launcher_gives_the_same_folders_and_exit_code(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL.format(project=str(PROJECT), tests=str(PROJECT / "tests")))
    names = []
    for launcher in ("basic", "joblib"):
        folder = tmp_path / launcher
        command = [
            sys.executable,
            str(script),
            "-m",
            "seed=0,1",
            f"hydra/launcher={launcher}",
            f"hydra.sweep.dir={folder}",
        ]
        environment = os.environ | {"GRAFT_ROOT": str(tmp_path)}
        outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert outcome.returncode == 1, outcome.stderr
        assert "RuntimeError: only here" in outcome.stdout
        assert read_csv(folder)[0]["count"] == "1"
        names.append({path.parent.name for path in folder.glob("*/overrides.yaml")})
    assert names[0] == names[1]


@pytest.mark.slow
@pytest.mark.parametrize(("rates", "code"), [("1e-3,1e6", 0), ("1e5,1e6", 1)])
def test_diverged_jobs_are_counted_apart_and_fail_a_sweep_only_where_all_diverged(app, tmp_path, rates, code):
    def diverge(cfg):
        if cfg.optimizer.lr > 1:
            results = {"status": "diverged", "message": "Diverged: the training loss is nan\nWhat to do: ..."}
            (Path(cfg.paths.run_dir) / "results.json").write_text(json.dumps(results))
            raise Diverged(results["message"])

    app.behave = diverge
    command = [
        "-m",
        "experiment=resnet_ft",
        f"optimizer.lr={rates}",
        "seed=0,1",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    ]
    first = app(*command)
    assert first.code == code
    rows = {float(line["optimizer.lr"]): line for line in read_csv(tmp_path / "sweep")}
    assert (rows[1e6]["count"], rows[1e6]["diverged"], rows[1e6]["failed"]) == ("0", "2", "0")
    assert rows[1e6]["unfinished"] == "0"
    if code == 0:
        assert (rows[1e-3]["count"], rows[1e-3]["diverged"]) == ("2", "0")
    assert "jobs diverged:" in (tmp_path / "sweep" / "summary.md").read_text()
    assert "DIVERGED" in first.out
    again = app(*command)
    assert (again.code, app.configs) == (code, [])


def test_an_experiment_that_is_a_sweep_takes_lists_of_values(app):
    outcome = app("experiment=alpha_sweep", "objective.alpha=0.5", "seed=0,1")
    assert (outcome.code, [cfg.seed for cfg in app.configs]) == (0, [0, 1])
    assert "[2/2] " in outcome.out


def test_an_experiment_that_is_a_sweep_takes_further_values_without_the_flag():
    from graft.cli.hydra_versions import with_sweep_flag

    folders, words = [PROJECT / "conf"], ["experiment=alpha_sweep", "seed=0,1"]
    assert with_sweep_flag(words, folders) == ["-m", *words]
    assert with_sweep_flag(["-m", *words], folders) == ["-m", *words]
    assert with_sweep_flag([*words, "--cfg", "job"], folders) == [*words, "--cfg", "job"]
    assert with_sweep_flag(["experiment=resnet_ft", "seed=0"], folders) == ["experiment=resnet_ft", "seed=0"]


def test_a_sweep_prints_one_line_a_job(app, tmp_path):
    app.score = lambda cfg: 0.5 + 0.1 * cfg.seed
    outcome = app(
        "-m", "experiment=resnet_ft", "optimizer.lr=0.001,0.01", "seed=1,2", f"hydra.sweep.dir={tmp_path / 's'}"
    )
    lines = [line for line in outcome.out.splitlines() if line.startswith("[")]
    assert [line.split("  ")[:2] for line in lines] == [
        ["[1/4] optimizer.lr=0.001 seed=1", "test/target/acc 0.6000"],
        ["[2/4] optimizer.lr=0.001 seed=2", "test/target/acc 0.7000"],
        ["[3/4] optimizer.lr=0.01 seed=1", "test/target/acc 0.6000"],
        ["[4/4] optimizer.lr=0.01 seed=2", "test/target/acc 0.7000"],
    ]
    assert "best so far 0.7000 (optimizer.lr=0.001 seed=2)" in lines[2]
    assert all("left" in line for line in lines[:3])
    assert "left" not in lines[3]
    assert outcome.out.count("seed=2") == 2 + 3  # each job once, as the best three times: no line of Hydra's


def test_the_plan_of_a_sweep_counts_its_jobs():
    plan = sweep_plan.plan_of(["seed=range(3)", "strategy=full,lora", "optimizer.lr=1"], is_grid=True)
    assert (plan.jobs, plan.varied) == (6, ["seed", "strategy"])
    assert plan.label(["optimizer.lr=1", "seed=2", "strategy=lora"]) == "seed=2 strategy=lora"
    assert sweep_plan.plan_of(["seed=0,1,2", "strategy=full,lora", "seed=1,2"], is_grid=True).jobs == 4
    assert sweep_plan.plan_of(["seed=1,2"], is_grid=False).jobs is None


@pytest.fixture
def disk():
    """`disk(bytes)` lets no file of this process grow beyond them, as on a full disk; `disk(None)` ends that."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, limits if size is None else (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(("full", "failed"), slow((1, 2), (700, 1)))  # bytes: not even a lock, or a lock alone
def test_every_job_of_a_sweep_is_tried_where_the_disk_is_full(app, tmp_path, disk, full, failed):
    app.behave = lambda cfg: disk(full)  # from the first job on
    found = app("-m", "experiment=resnet_ft", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    disk(None)
    assert found.code != 0, found.out + found.err
    assert found.err.count("FAILED ") == failed, found.out + found.err
    assert found.err.count("cannot be written: File too large") > failed  # and the summary
    assert "Traceback" not in found.err
    left = [path for path in (tmp_path / "sweep").rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.endswith((".new", ".unfinished")) or "unfinished-" in path.name]
    assert not [path for path in left if path.name in ("results.json", "error.txt", "DONE") and not path.stat().st_size]
    app.behave = lambda cfg: None
    again = app("-m", "experiment=resnet_ft", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert again.code == 0, again.err
    assert len(list((tmp_path / "sweep").glob("*/DONE"))) == 2


@pytest.mark.slow
def test_numbers_of_seeds_and_splits_are_a_sweep(app):
    assert app("seeds=2", "splits=2").code == 0
    assert [(cfg.seed, cfg.data.split_seed) for cfg in app.configs] == [(s, p) for s in range(2) for p in range(2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seeds=many"], "`seeds=many`: how many, from 1 to 1000"),
        (["splits=0"], "-m data.split_seed=7,8,9"),
        (["seeds=3", "seed=4"], "`seeds=3` with `seed=4`: both set seed"),
    ],
)
def test_a_number_of_seeds_that_is_none(app, words, said):
    outcome = app(*words)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert said in outcome.err
