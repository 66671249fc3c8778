"""`wandb agent` on conf/sweep/wandb.yaml, with a server of this test's own that says what W&B's says to an agent."""

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tests.small_run import CONF

SWEEP = yaml.safe_load((Path(CONF) / "sweep/wandb.yaml").read_text())
CHOSEN = {"strategy": "full", "optimizer.lr": 0.0123, "seed": 2}
TINY = [
    *("backbone=lenet", "data.source.samples=80", "data.labels_per_class=4", "data.eval_batch_size=512"),
    *("pretrain.epochs=1", "training.epochs=1", "training.threads=1", "trainer=cpu", "trainer.limit_test_batches=1"),
    *("baselines=none", "logger=[csv,wandb]", "logger.wandb.mode=offline"),
]


class Answers(BaseHTTPRequestHandler):
    """GraphQL as far as an agent asks: its sweep, then a run, then the end once the run is over."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = {}  # to what W&B counts for itself
        if self.path.endswith("graphql"):
            asked = json.loads(body)
            answer = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    def __init__(self, sweep):
        super().__init__(("127.0.0.1", 0), Answers)
        self.sweep, self.states = sweep, []

    def answer(self, query, variables):
        if "agentHeartbeat" in query:
            self.states.append(json.loads(variables["runState"]))
            told = [{"type": "run", "run_id": "first", "program": "train.py", "args": self.arguments()}]
            if len(self.states) > 1:
                told = [] if self.states[-1] else [{"type": "exit"}]
            return {"agentHeartbeat": {"agent": {"id": "one"}, "commands": json.dumps(told)}}
        if "createAgent" in query:
            return {"createAgent": {"agent": {"id": "one"}}}
        if "sweep(sweepName" in query:
            found = {"id": "U3dlZXA=", "name": "abc", "method": SWEEP["method"], "state": "RUNNING"}
            return {"project": {"sweep": {**found, "config": yaml.safe_dump(self.sweep), "runs": {"edges": []}}}}
        viewer = {"id": "me", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"features": []}}

    def arguments(self):
        return {key: {"value": value} for key, value in CHOSEN.items()}


@contextmanager
def serving(sweep):
    server = Server(sweep)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
def test_an_agent_runs_what_the_sweep_chooses(tmp_path):
    sweep = {**SWEEP, "command": [*SWEEP["command"], *TINY]}  # small: the last word on a key counts
    assert CHOSEN.keys() == SWEEP["parameters"].keys()
    own = {"GRAFT_ROOT": str(tmp_path), "GRAFT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    own |= {"WANDB_API_KEY": "0" * 40, "WANDB_DIR": str(tmp_path), "WANDB_MODE": "online"}
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with serving(sweep) as server:
        own["WANDB_BASE_URL"] = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "-m", "wandb", "agent", "someone/graft/abc"]
        done = subprocess.run(
            command, cwd=Path(CONF).parent, env={**os.environ, **own}, capture_output=True, text=True, timeout=900
        )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    (file,) = tmp_path.glob("logs/*/runs/*/results.json")
    results = json.loads(file.read_text())
    assert results["status"] == "done"
    assert {f"{key}={value}" for key, value in CHOSEN.items()} <= set(results["overrides"])
    assert results["selection"]["monitor"] == SWEEP["metric"]["name"]
    assert {"first": True} in server.states  # the agent told that the run was running
    assert list(tmp_path.glob("**/offline-run-*-first"))  # as the agent named it
