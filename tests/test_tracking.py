import csv
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger

from graft.cli.hydra_versions import VERSION_BASE
from graft.errors import GraftError
from graft.loggers.build import broken, build_loggers, finish, log_results, wandb_info
from graft.loggers.guarded import Guarded
from graft.loggers.metrics_file import MetricsFile
from graft.loggers.wandb_run import MAX_CONFUSION_CELLS, WandbRun, confusion_rows, has_wandb_login, wandb_id, wandb_mode
from graft.notes import say_once

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning, on machines with many cores
CONF = Path(__file__).parent.parent / "conf"
RESULTS = {
    "status": "done",
    "metrics": {"test/target/acc": 0.75, "test/target/loss": 0.5, "val/target/acc": 0.8},
    "score": {"metric": "test/target/acc", "value": 0.75, "higher_is_better": True},
    "selection": {"rule": "target_val", "epoch": 1, "oracle": False},
    "parameters": {"total": 10, "trainable": 4, "groups": []},
    "time": {"fit_s": 1.5},
    "samples_per_s": 20.0,
    "peak_memory_mb": None,
    "confusion": {"test/target": {"matrix": [[3, 1], [0, 4]], "classes": ["cat", "dog"]}},
}


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))


def loggers_for(run_dir, cfg=None, **changes):
    options = {
        "run_dir": run_dir,
        "name": "resnet_ft",
        "config": {"seed": 3, "optimizer": {"lr": 0.01}},
        "tags": ["a tag", "other"],
        "group": "sweep_1",
        "job_type": "frozen",
    }
    return build_loggers({"wandb": {}} if cfg is None else cfg, **(options | changes))


def kind_of(logger):
    return type(getattr(logger, "logger", logger)).__name__


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch).square().mean()
        self.log("train/target/loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/target/acc", float(self.current_epoch))

    def test_step(self, batch, batch_idx):
        self.log("test/target/acc", 0.75)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit_and_test(run_dir, loggers):
    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=loggers,
        callbacks=[],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=run_dir,
    )
    module = Net()
    trainer.fit(module, data, data)
    trainer.test(module, data, verbose=False)


def read_wandb_file(path):
    """Records of an offline run: a 7-byte header, then LevelDB's log format around protobuf messages.

    The file is cut into blocks of 32 KiB; a chunk is checksum (4), length (2), type (1) and payload, and a record is
    one chunk (type 1) or several (2 first, 3 middle, 4 last). A block's last 6 bytes or fewer are padding.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content, block, header = path.read_bytes(), 32 * 1024, 7
    assert content[:4] == b":W&B"
    records, partial, at = [], b"", header
    while at + header <= len(content):
        if block - at % block < header:
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        partial += content[at + header : at + header + length]
        at += header + length
        if kind in (1, 4):
            records.append(Record.FromString(partial))
            partial = b""
    return records


def offline_run(run_dir):
    """What an offline run's file says: its identity, config, history rows and summary."""
    import wandb

    wandb.teardown()  # finish() returns some milliseconds before the service process has written; this waits for it
    (path,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    run, config, rows, summary, exit_code = None, {}, [], {}, None
    for record in read_wandb_file(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "config":
            config |= {
                item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.config.update
            }
        elif kind == "history":
            rows.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
        elif kind == "summary":
            summary |= {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
        elif kind == "exit":
            exit_code = record.exit.exit_code
    return run, config, rows, summary, exit_code


@pytest.mark.slow
def test_offline_run_reads_back(tmp_path, capfd):
    run_dir = tmp_path / "a run"
    loggers = loggers_for(run_dir)
    assert not run_dir.exists(), "nothing may start before the Trainer asks for it"
    assert wandb_info(loggers) is None
    fit_and_test(run_dir, loggers)
    log_results(loggers, RESULTS)
    finish(loggers, ok=True)

    run, config, rows, summary, exit_code = offline_run(run_dir)
    assert (run.project, run.display_name, run.run_group, run.job_type) == ("graft", "resnet_ft", "sweep_1", "frozen")
    assert list(run.tags) == ["a tag", "other"]
    assert config["seed"] == 3
    assert config["optimizer"] == {"lr": 0.01}
    assert config["run_dir"] == str(run_dir)
    losses = [row["train/target/loss"] for row in rows if "train/target/loss" in row]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert [row["val/target/acc"] for row in rows if "val/target/acc" in row] == [0.0, 1.0]
    assert [row["trainer/global_step"] for row in rows if "val/target/acc" in row] == [1, 3]
    assert summary["test/target/acc"] == 0.75
    assert summary["val/target/acc"] == 0.8, "the summary has the selected checkpoint's score, not the last epoch's"
    assert summary["score/metric"] == "test/target/acc"
    assert summary["selection/rule"] == "target_val"
    assert summary["parameters/trainable"] == 4
    assert summary["time/fit_s"] == 1.5
    assert summary["run_dir"] == str(run_dir)
    assert exit_code == 0

    info = wandb_info(loggers)
    assert info["offline"] is True
    assert info["url"] is None
    assert Path(info["dir"]) == next((run_dir / "wandb").glob("offline-run-*"))
    assert info["id"] == run.run_id

    (table_file,) = (run_dir / "wandb").glob("offline-run-*/files/media/table/**/*.json")
    table = json.loads(table_file.read_text())
    assert table["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert sorted(table["data"]) == [["cat", "cat", 3], ["cat", "dog", 1], ["dog", "dog", 4]]

    out, err = capfd.readouterr()
    lines = [line for line in (out + err).splitlines() if "W&B" in line or "wandb" in line]
    assert lines == [
        f"W&B records offline (no login found); upload with: wandb sync {shlex.quote(str(run_dir))}/wandb/offline-run-*"
    ]


def test_runs_of_one_process_do_not_mix(tmp_path, capfd):
    sweep = tmp_path / "sweep_1"
    for job, ok in (("a", True), ("b", False)):
        loggers = loggers_for(sweep / job, config={"job": job})
        loggers[1].log_metrics({"val/target/acc": 0.1}, step=1)
        finish(loggers, ok=ok)
    runs = {job: offline_run(sweep / job) for job in ("a", "b")}
    assert runs["a"][1]["job"] == "a"
    assert runs["b"][1]["job"] == "b"
    assert runs["a"][0].run_id != runs["b"][0].run_id
    assert (runs["a"][4], runs["b"][4]) == (0, 1), "a failed job is marked failed"
    import wandb

    assert wandb.run is None, "the run never becomes the process's global one"
    out, _ = capfd.readouterr()
    assert out.count("wandb sync") == 1, "a sweep says once how to upload"
    assert f"wandb sync {sweep}/*/wandb/offline-run-*" in out


@pytest.mark.slow
def test_jobs_of_a_sweep_are_named_by_what_differs_and_warn_once(tmp_path):
    command = [sys.executable, "train.py", "-m", "experiment=resnet_ft", "backbone=lenet", "logger=wandb"]
    command += ["data.source.samples=300", "pretrain.epochs=1", "training.epochs=1", "training.threads=1"]
    command += ["pretrain.optimizer.lr=1e-6", "strategy=frozen,full", "seed=1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    environment = {**os.environ, "WANDB_MODE": "offline", "GRAFT_CACHE": str(tmp_path / "cache")}
    outcome = subprocess.run(command, cwd=CONF.parent, env=environment, capture_output=True, text=True, check=True)
    jobs = [path.parent for path in sorted((tmp_path / "sweep").glob("*/wandb"))]
    runs = [offline_run(job)[0] for job in jobs]
    assert sorted(run.display_name for run in runs) == ["resnet_ft strategy=frozen", "resnet_ft strategy=full"]
    assert {run.run_group for run in runs} == {"sweep"}
    lines = outcome.stdout.splitlines()
    assert len([line for line in lines if "pretraining learned next to nothing" in line]) == 1, outcome.stdout
    assert len([line for line in lines if "wandb sync" in line]) == 1


def test_finish_without_a_start_writes_nothing(tmp_path):
    loggers = loggers_for(tmp_path / "run")
    log_results(loggers, {"status": "running", "time": {"fit_s": 0.0}, "selection": None})
    finish(loggers, ok=False)
    assert wandb_info(loggers) is None
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_keeps_its_wandb_id(tmp_path):
    first = loggers_for(tmp_path)
    first[1].log_metrics({"a": 1.0}, step=0)
    finish(first, ok=False)
    second = loggers_for(tmp_path)
    second[1].log_metrics({"a": 2.0}, step=1)
    finish(second, ok=True)
    assert wandb_info(second)["id"] == wandb_info(first)["id"]
    (tmp_path / "wandb" / "offline-run-20990101_000000-later").mkdir()
    (tmp_path / "wandb" / "run-20990101_000000-failed").mkdir()
    assert wandb_id(tmp_path) == "later"


def test_module_hyperparameters_do_not_reach_the_config(tmp_path):
    loggers = loggers_for(tmp_path)
    loggers[1].log_hyperparams({"hidden": 3})
    loggers[1].log_metrics({"a": 1.0}, step=0)
    finish(loggers, ok=True)
    assert "hidden" not in offline_run(tmp_path)[1]


@pytest.fixture
def closed_server(monkeypatch):
    """A login for a server on a port of this machine where nothing listens; wandb reads both once a process."""
    import wandb

    wandb.teardown()
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_API_KEY", "0" * 40)
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        yield
    wandb.teardown()


def test_unreachable_server_falls_back_to_offline(tmp_path, monkeypatch, capfd, closed_server):
    monkeypatch.setattr("graft.loggers.wandb_run.WANDB_INIT_TIMEOUT_S", 1.0)
    monkeypatch.setattr("graft.loggers.wandb_run._unreachable", set())
    modes = []
    start = WandbRun._init
    monkeypatch.setattr(WandbRun, "_init", lambda self, mode, earlier: modes.append(mode) or start(self, mode, earlier))
    for job in ("a", "b"):
        loggers = loggers_for(tmp_path / "sweep_1" / job)
        loggers[1].log_metrics({"a": 1.0}, step=0)
        finish(loggers, ok=True)
        assert wandb_info(loggers)["offline"] is True
    assert modes == ["online", "offline", "offline"], "a sweep waits for the server once"
    out, err = capfd.readouterr()
    assert "W&B cannot be reached" in out
    assert len((out + err).strip().splitlines()) == 1

    online = loggers_for(tmp_path / "online", {"wandb": {"mode": "online"}})
    with pytest.raises(GraftError, match=r"logger\.wandb\.mode=offline"):
        _ = online[1].experiment

    # One run more, so that wandb's service has answered what was given up before it is told to end: where its answer
    # meets a closed connection, it never hears of the end, and wandb.teardown waits for ever.
    after = loggers_for(tmp_path / "after", {"wandb": {"mode": "offline"}})
    after[1].log_metrics({"a": 1.0}, step=0)
    finish(after, ok=True)


def test_login_decides_between_online_and_offline(tmp_path, monkeypatch):
    server = "https://api.wandb.ai"
    assert not has_wandb_login(server)
    netrc_file = tmp_path / "netrc"
    netrc_file.write_text("machine api.wandb.ai login user password key\n")
    monkeypatch.setenv("NETRC", str(netrc_file))
    assert has_wandb_login(server)
    assert has_wandb_login("https://api.forge.coreweave.com"), "the public service's new name takes the old login"
    assert not has_wandb_login("https://wandb.example.com"), "a login elsewhere does not count"
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert has_wandb_login("https://wandb.example.com")


def test_mode_from_key_and_environment(tmp_path, monkeypatch):
    assert wandb_mode("auto") == "auto"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert wandb_mode("auto") == "offline"
    assert wandb_mode("online") == "online", "the config wins over the environment"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert [type(logger) for logger in loggers_for(tmp_path)] == [MetricsFile]
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(GraftError, match="Allowed: auto, online, offline, disabled"):
        wandb_mode("auto")


def test_unknown_logger_is_named_with_what_is_allowed(tmp_path):
    with pytest.raises(GraftError, match=r"logger\.mlflow.*csv, tensorboard, wandb"):
        loggers_for(tmp_path, {"mlflow": {}})


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ("csv", ["MetricsFile"]),
        ("wandb", ["MetricsFile", "WandbRun"]),
        ("tensorboard", ["MetricsFile", "TensorBoardLogger"]),
        ("[wandb,tensorboard]", ["MetricsFile", "WandbRun", "TensorBoardLogger"]),
        ("[csv,tensorboard]", ["MetricsFile", "TensorBoardLogger"]),
    ],
)
def test_logger_overrides(tmp_path, choice, kinds):
    primary = {"defaults": [{"logger": ["wandb"]}, "_self_"], "notes": ""}
    (tmp_path / "primary.yaml").write_text(yaml.safe_dump(primary))
    searchpath = f"hydra.searchpath=[file://{CONF}]"
    with initialize_config_dir(str(tmp_path), **VERSION_BASE):
        cfg = compose("primary", overrides=[f"logger={choice}", searchpath])
    chosen = OmegaConf.to_container(cfg.logger, resolve=True)
    assert [kind_of(logger) for logger in loggers_for(tmp_path, chosen)] == kinds


def test_wandb_options_reach_the_run(tmp_path):
    cfg = {"wandb": {"mode": "offline", "project": "other", "entity": "team", "notes": "why", "system_stats": False}}
    loggers = loggers_for(tmp_path, cfg, group=None)
    loggers[1].log_metrics({"a": 1.0}, step=0)
    finish(loggers, ok=True)
    run = offline_run(tmp_path)[0]
    assert (run.project, run.entity, run.notes, run.run_group) == ("other", "team", "why", "")


def test_tensorboard_writes_into_the_run_folder(tmp_path):
    pytest.importorskip("tensorboard")
    loggers = loggers_for(tmp_path, {"tensorboard": {}})
    fit_and_test(tmp_path, loggers)
    finish(loggers, ok=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("val/target/acc")] == [0.0, 1.0]


def rows_of(run_dir):
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_file_has_every_row_of_a_run(tmp_path):
    loggers = loggers_for(tmp_path, {"csv": {}})
    (tmp_path / "config.yaml").write_text("here before\n")
    fit_and_test(tmp_path, loggers)
    finish(loggers, ok=True)
    rows = rows_of(tmp_path)
    assert list(rows[0])[:2] == ["epoch", "step"]
    assert [row["val/target/acc"] for row in rows if row["val/target/acc"]] == ["0.0", "1.0"]
    assert [row["epoch"] for row in rows if row["train/target/loss"]] == ["0", "1"]
    assert [row["test/target/acc"] for row in rows if row["test/target/acc"]] == ["0.75"]


def test_metrics_file_is_on_disk_after_each_row(tmp_path):
    file = MetricsFile(tmp_path)
    file.log_metrics({"epoch": 0, "a": 1.0}, step=5)
    file.save()
    rows = rows_of(tmp_path)
    file.close()
    assert rows == [{"epoch": "0", "step": "5", "a": "1.0"}]


def test_metrics_file_replaces_rows_from_where_a_run_goes_on(tmp_path):
    first = MetricsFile(tmp_path)
    for step in (10, 20, 30):
        first.log_metrics({"train/target/loss": 1.0 * step}, step=step)
    first.log_metrics({"test/target/acc": 0.1}, step=30)
    first.close()
    resumed = MetricsFile(tmp_path)
    resumed.log_metrics({"train/target/loss": -20.0, "lr": 0.1}, step=20)
    resumed.close()
    assert [(r["step"], r["train/target/loss"], r["lr"]) for r in rows_of(tmp_path)] == [
        ("10", "10.0", ""),
        ("20", "-20.0", "0.1"),
    ]
    tested = MetricsFile(tmp_path)  # a test of a finished run counts its steps from 0
    tested.log_metrics({"test/target/acc": 0.5}, step=0)
    tested.close()
    again = MetricsFile(tmp_path)
    again.log_metrics({"test/target/acc": 0.6}, step=0)
    again.close()
    assert [r["train/target/loss"] for r in rows_of(tmp_path)] == ["10.0", "-20.0", ""]
    assert rows_of(tmp_path)[-1]["test/target/acc"] == "0.6"


def test_confusion_rows_are_bounded():
    side = 200
    rows = confusion_rows([[i * side + j for j in range(side)] for i in range(side)], [str(i) for i in range(side)])
    assert len(rows) == MAX_CONFUSION_CELLS
    assert rows[0] == ["199", "199", side * side - 1]


def test_building_loggers_imports_no_wandb(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert len(loggers_for(tmp_path)) == 2


def test_wandb_sweep_drives_train_py():
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    sweep = yaml.safe_load((CONF / "sweep" / "wandb.yaml").read_text())
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["name"].startswith("val/"), "never select on the test split"
    assert sweep["metric"]["goal"] == "maximize"
    values = {name: {"value": p["values"][0] if "values" in p else p["min"]} for name, p in sweep["parameters"].items()}
    arguments = create_sweep_command_args({"args": values})["args_no_hyphens"]
    command = []
    for word in create_sweep_command(sweep["command"]):
        command += arguments if word == "${args_no_hyphens}" else [word]
    assert command[1:3] == ["python", "train.py"]
    assert "strategy=frozen" in command
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg = compose("train", overrides=command[3:])
    assert cfg.optimizer.lr == 1e-4
    assert "WandbRun" in {kind_of(logger) for logger in loggers_for(Path(), cfg.logger)}


class Breaking(Logger):
    """A logger of which one call fails, as those of a full disk or a dead service do."""

    name = version = "breaking"

    def __init__(self, call):
        super().__init__()
        self.calls = []

        def broken(*args, **kwargs):
            self.calls.append(call)
            raise OSError(28, "No space left on device")

        setattr(self, call, broken)

    def log_metrics(self, metrics, step=None):
        self.calls.append("log_metrics")

    def log_hyperparams(self, params, *args, **kwargs):
        self.calls.append("log_hyperparams")


@pytest.mark.parametrize("call", ["log_metrics", "save", "finalize", "log_hyperparams", "log_graph"])
def test_a_logger_that_breaks_says_so_once_and_the_run_goes_on(tmp_path, capsys, call):
    say_once.cache_clear()
    logger = Breaking(call)
    loggers = [MetricsFile(tmp_path), Guarded("mine", logger)]
    if call.startswith("log_"):
        getattr(loggers[1], call)({"a": 1.0})
    fit_and_test(tmp_path, loggers)
    finish(loggers, ok=True)
    assert broken(loggers) == {"mine": "OSError: [Errno 28] No space left on device"}
    assert logger.calls.count(call) == 1, "a broken logger is not asked again"
    assert logger.calls[-1] == call
    assert capsys.readouterr().out.count("logger.mine stopped recording (OSError: [Errno 28]") == 1
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [row["test/target/acc"] for row in rows][-1] == "0.75"


KILLED = """
import os, signal, subprocess, sys
import pytorch_lightning as pl
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_tracking import Net, fit_and_test, loggers_for
from graft.loggers.build import broken, finish, log_results

folder = Path({folder!r})
loggers = loggers_for(folder / "first", {{"wandb": {{"mode": "offline"}}}})
loggers[1].log_metrics({{"a": 1.0}}, step=0)
children = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "wandb-core"], capture_output=True, text=True)
(service,) = children.stdout.split()
os.kill(int(service), signal.SIGKILL)
os.waitpid(int(service), 0)
fit_and_test(folder / "first", loggers)
log_results(loggers, {{"metrics": {{}}}})
finish(loggers, ok=True)
assert "wandb" in broken(loggers), broken(loggers)

loggers = loggers_for(folder / "second", {{"wandb": {{"mode": "offline"}}}})
fit_and_test(folder / "second", loggers)
finish(loggers, ok=True)
assert not broken(loggers), broken(loggers)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pgrep") is None, reason="finds W&B's process with pgrep")
def test_wandb_that_is_killed_ends_neither_the_run_nor_the_next_one(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout.count("logger.wandb stopped recording") == 1
    for job in ("first", "second"):
        assert len((tmp_path / job / "metrics.csv").read_text().splitlines()) >= 5
