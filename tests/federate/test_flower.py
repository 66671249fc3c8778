"""Flower itself between processes on this machine; skipped where its environment is not made (make flower)."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from graft.errors import GraftError
from graft.federate import flower
from graft.runs import record
from graft.runs.checkpoints import load
from tests.federate.test_federate import TINY
from tests.small_run import train_in

try:
    flower.environment_of("federate.flower", None)
except GraftError:
    pytest.skip("Flower is not there: make flower, or GRAFT_FLOWER", allow_module_level=True)


@pytest.mark.slow
def test_a_server_and_two_clients_are_the_run_in_one_process_bit_for_bit(tmp_path):
    port = flower.free_port()
    environment = {**os.environ, "GRAFT_ROOT": str(tmp_path), "OMP_NUM_THREADS": "1"}
    settings = [*TINY, "baselines=none", f"++paths.cache_dir={tmp_path}", "training.epochs=1"]
    parts = {
        "server": ["server", f"federate.port={port}", "federate.wait_s=300"],
        **{
            f"client{number}": [
                *("client", f"federate.address=127.0.0.1:{port}", f"federate.number={number}", "federate.wait_s=300")
            ]
            for number in range(2)
        },
    }
    with ExitStack() as stack:
        started = {}
        for name, words in parts.items():
            output = stack.enter_context((tmp_path / f"{name}.txt").open("wb"))
            command = [sys.executable, "-m", "graft", "federate", *words, *settings, f"hydra.run.dir={tmp_path / name}"]
            started[name] = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        codes = {name: process.wait(timeout=500) for name, process in started.items()}
    said = {name: (tmp_path / f"{name}.txt").read_text() for name in parts}
    assert codes == dict.fromkeys(parts, 0), said
    alone = train_in(tmp_path, *TINY, "training.epochs=1", folder="alone")
    trained = load(tmp_path / "server" / "checkpoints" / "last.ckpt")["state_dict"]
    for name, value in load(tmp_path / "alone" / "checkpoints" / "last.ckpt")["state_dict"].items():
        assert torch.equal(value, trained[name]), name
    results = record.read(tmp_path / "server")
    assert results["metrics"] == alone["metrics"]
    assert results["federated"]["rounds"] == alone["federated"]["rounds"]
    assert Path(tmp_path / "client1" / "model" / "model.json").is_file()
