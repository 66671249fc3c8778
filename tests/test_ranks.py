"""Processes that torchrun or srun started: one folder, one network, one message, one end."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins.environments import SLURMEnvironment
from small_run import CONF

from graft.cli import ranks
from graft.cli.ranks import Ranks
from graft.errors import GraftError

SCRIPT = str(Path(CONF).parent / "train.py")
TINY = [
    *("backbone=lenet", "backbone.weights=source", "data.source.samples=80", "data.labels_per_class=4"),
    *("data.eval_batch_size=512", "pretrain.epochs=1", "training.epochs=2", "training.threads=1"),
    *("trainer.limit_test_batches=1", "trainer.precision=32-true", "logger=csv"),
]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.fixture
def two(monkeypatch):
    """Both processes' view of one srun, which meet in this process."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", free_port())
    slurm = {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
    return [Ranks({**slurm, "SLURM_PROCID": str(rank)}) for rank in (0, 1)]


def together(first, second):
    """What the second process returns while the first one does its part."""
    found = []
    thread = threading.Thread(target=lambda: found.append(second()))
    thread.start()
    first()
    thread.join(30)
    return found[0]


def test_all_processes_take_the_first_ones_folder_and_resume(two):
    first, second = two
    decision = {"folder": "/runs/one", "resume": True}
    assert together(lambda: first.decide(**decision), second.follow) == decision
    assert (first.end(1), second.end(130)) == (1, 130)  # the run began: each ends with its own


def test_where_there_is_no_run_all_processes_end_with_the_first_ones_code(two):
    first, second = two
    assert together(lambda: first.end(2), lambda: second.end(0)) == 2


def test_a_process_whose_first_one_never_comes_ends_with_a_message(two, monkeypatch, capsys):
    monkeypatch.setattr(ranks, "LIMIT", ranks.timedelta(seconds=1))
    assert two[1].end(0) == 1
    assert "Process 1 of 2 heard nothing from the first one" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_message(two, monkeypatch):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        monkeypatch.setenv("MASTER_PORT", str(other.getsockname()[1]))
        with pytest.raises(GraftError, match=r"cannot meet: .*MASTER_PORT=<port>"):
            two[0].decide(folder="/runs/one", resume=None)
        assert two[0].end(2) == 2


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"SLURM_JOB_ID": "12", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"},
        {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "bash"},
    ],
)
def test_a_process_that_nothing_launched_is_alone(environment):
    alone = Ranks(environment)
    alone.decide(folder="/runs/one", resume=None)
    assert (alone.size, alone.rank, alone.end(3)) == (1, 0, 3)


def test_torchruns_processes_come_before_sruns():
    agent = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    inside = Ranks({**agent, "TORCHELASTIC_RUN_ID": "none", "RANK": "1", "WORLD_SIZE": "8"})
    assert (inside.launcher, inside.rank, inside.size) == ("torchrun", 1, 8)


@pytest.mark.parametrize(
    "nodes", ["host[05-9]-ib,b", "host[5,7]", "a1,a2", "a1 a2", "node-2-[3-4],node-5", "127.0.0.1"]
)
def test_srun_processes_meet_where_lightning_does(monkeypatch, nodes):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that what is set is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_NODELIST", nodes)
    monkeypatch.setenv("SLURM_JOB_ID", "120034")
    own = ranks.meeting_place()
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name)
    lightning = SLURMEnvironment()
    assert own == (lightning.main_address, lightning.main_port) == (lightning.main_address, 15034)


def test_another_number_of_processes_than_the_trainers_is_refused(two):
    for devices, nodes in ((1, 1), (1, 2), (4, 1)):
        with pytest.raises(GraftError, match=rf"is {devices * nodes}, but .* srun started are 2, 2 on each"):
            two[0].check({"devices": devices, "num_nodes": nodes})
    for devices in (2, [0, 1], "auto", -1):
        two[0].check({"devices": devices, "num_nodes": 1})
    with pytest.raises(GraftError, match=r"is 2, but .* torchrun started are 1\."):
        Ranks({"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "WORLD_SIZE": "1"}).check({"devices": 2, "num_nodes": 1})


def test_srun_has_to_say_how_many_processes_a_machine_has():
    slurm = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
    with pytest.raises(GraftError, match="--ntasks-per-node"):
        Ranks(slurm).check({"devices": 2, "num_nodes": 1})
    Ranks({**slurm, "SLURM_NTASKS": "1"}).check({"devices": 1, "num_nodes": 1})


# Real processes


def environment(root, **more):
    own = {"GRAFT_ROOT": str(root), "GRAFT_CACHE": str(root / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, **more}


def torchrun(root, *arguments):
    """Exit code and what all processes printed, torchrun's own report apart."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", SCRIPT, *TINY, *arguments]
    done = subprocess.run(command, env=environment(root), capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def srun(root, *arguments, flags=()):
    """Exit codes and what both processes printed."""
    slurm = {
        **{"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train", "MASTER_PORT": free_port()},
        **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
        **{"SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"},
    }
    processes = []
    for rank in "01":
        own = environment(root, **slurm, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        command = [sys.executable, SCRIPT, *flags, *TINY, *arguments]
        processes.append(
            subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    printed = [one.communicate(timeout=300)[0] for one in processes]
    return [one.returncode for one in processes], printed


def folders(root):
    return list(root.glob("logs/*/runs/*"))


def pretrained(root):
    (file,) = root.glob("cache/computed/*/weights.pt")
    return file.parent.name, torch.load(file, weights_only=True)


def same(first, second):
    return all(torch.equal(value, second[part][name]) for part in first for name, value in first[part].items())


@pytest.mark.slow
def test_torchruns_processes_make_one_run_with_the_network_that_one_process_pretrains(tmp_path):
    code, printed = torchrun(tmp_path / "two", "trainer=ddp_cpu")
    assert code == 0, printed
    (folder,) = folders(tmp_path / "two")
    results = json.loads((folder / "results.json").read_text())
    assert results["status"] == "done"
    assert (folder / "DONE").exists()
    assert printed.count("Pretraining on the source") == 1

    alone = environment(tmp_path / "one")
    subprocess.run([sys.executable, SCRIPT, *TINY, "trainer=cpu"], env=alone, check=True, capture_output=True)
    (one, weights), (other, others) = pretrained(tmp_path / "one"), pretrained(tmp_path / "two")
    assert one == other
    assert same(weights, others)

    code, printed = torchrun(tmp_path / "two", "trainer=ddp_cpu", "resume=true", f"hydra.run.dir={folder}")
    assert code == 0, printed
    assert printed.count("Already done, skipped") == 1
    assert folders(tmp_path / "two") == [folder]


@pytest.mark.slow
def test_sruns_processes_go_on_in_one_folder_and_end_together_where_it_is_done(tmp_path):
    folder = tmp_path / "run"
    command = ["trainer=ddp_cpu", "resume=auto", f"hydra.run.dir={folder}"]
    codes, printed = srun(tmp_path, *command)
    assert codes == [0, 0], printed
    assert (folder / "DONE").exists()
    (folder / "DONE").unlink()  # as after a kill before the end
    codes, printed = srun(tmp_path, *command)
    assert codes == [0, 0], printed
    assert (folder / "DONE").exists()
    assert "Going on from" in printed[0]
    codes, printed = srun(tmp_path, *command)
    assert codes == [0, 0], printed
    assert printed == [f"Already done, skipped: {folder}\n", ""]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizer.lr=abc", "trainer=ddp_cpu"], "`optimizer.lr=abc`: must be"),
        (["bacbone=lenet"], "`bacbone`: there is no such key"),
        (["trainer=cpu"], "that srun started are 2"),
    ],
)
def test_a_mistake_ends_all_of_sruns_processes_with_one_message_and_no_folder(tmp_path, arguments, message):
    codes, printed = srun(tmp_path, *arguments)
    assert codes == [2, 2], printed
    assert message in printed[0]
    assert printed[1] == ""
    assert not folders(tmp_path)


@pytest.mark.slow
def test_a_mistake_ends_torchruns_processes_with_one_message_and_no_folder(tmp_path):
    code, printed = torchrun(tmp_path, "optimizer.lr=abc", "trainer=ddp_cpu")
    assert code == 1  # torchrun's own
    assert printed.count("`optimizer.lr=abc`: must be") == 1
    assert set(re.findall(r"exitcode +: (-?\d+)", printed)) in ({"2"}, {"2", "-15"})  # torchrun ends the slower one
    assert not folders(tmp_path)


@pytest.mark.slow
def test_a_sweep_of_several_processes_is_refused_by_one_message(tmp_path):
    codes, printed = srun(tmp_path, "seed=0,1", flags=["-m"])
    assert codes == [2, 2], printed
    assert "Start it without srun" in printed[0]
    assert printed[1] == ""
    assert not list(tmp_path.glob("logs"))
