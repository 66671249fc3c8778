"""Two machines as two network namespaces of this one, joined by a cable: what meets only on loopback does not meet."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.test_launchers import SCRIPT, TINY

ADDRESSES = ("10.83.19.1", "10.83.19.2")


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def nodes():
    """The names of two namespaces with an address each; skips where this user may not make any."""
    names = [f"graft-{uuid.uuid4().hex[:6]}" for _ in ADDRESSES]
    cables = [f"v{name[-6:]}" for name in names]
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", cables[0], "type", "veth", "peer", "name", cables[1])
            for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
                ip("link", "set", cable, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
                ip("-n", name, "link", "set", cable, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield list(zip(names, cables, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_torchrun_on_two_machines_makes_one_run(tmp_path, nodes):
    processes = []
    for rank, (name, cable) in enumerate(nodes):
        own = {"GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
        own |= {"GLOO_SOCKET_IFNAME": cable}
        torchrun = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", f"--node_rank={rank}"]
        torchrun += [f"--master_addr={ADDRESSES[0]}", "--master_port=29400"]
        command = ["ip", "netns", "exec", name, sys.executable, *torchrun, SCRIPT, *TINY]
        command += ["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2"]
        processes.append(
            subprocess.Popen(
                command, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    printed = [one.communicate(timeout=900)[0] for one in processes]
    assert [one.returncode for one in processes] == [0, 0], printed
    (folder,) = tmp_path.glob("logs/*/runs/*")
    results = json.loads((Path(folder) / "results.json").read_text())
    assert results["status"] == "done"
    assert sum(text.count("Pretraining on the source") for text in printed) == 1
