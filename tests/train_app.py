"""Runs train.py in this process with a training that takes no time, to test what surrounds it."""

import importlib.util
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

PROJECT = Path(__file__).parents[1]


@dataclass
class Outcome:
    code: int
    out: str
    err: str


class App:
    """`app("experiment=resnet_ft")` runs that command line; `app.configs` is what reached training."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
        self.root, self.monkeypatch, self.capsys = root, monkeypatch, capsys
        self.configs: list[DictConfig] = []
        self.more: dict = {}  # what else is in results.json
        self.behave: Callable[[DictConfig], None] = lambda cfg: None
        self.score: Callable[[DictConfig], float] = lambda cfg: 0.5
        fake = types.ModuleType("graft.run")
        fake.train = self.train
        monkeypatch.setitem(sys.modules, "graft.run", fake)
        monkeypatch.setenv("GRAFT_ROOT", str(root))
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        spec = importlib.util.spec_from_file_location("train_script", PROJECT / "train.py")
        self.script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.script)

    def __call__(self, *arguments: str) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        self.configs.clear()
        code = self.script.main()
        out, err = self.capsys.readouterr()
        return Outcome(code, out, err)

    def train(self, config: Mapping) -> dict:
        """Stands in for graft.run.train: as many files, no training."""
        cfg = OmegaConf.create(dict(config))
        self.configs.append(cfg)
        folder = Path(cfg.paths.run_dir)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        self.behave(cfg)
        score = self.score(cfg)
        results = {
            "format": 1,
            "status": "done",
            "score": {"metric": "test/target/acc", "value": score, "higher_is_better": True},
            "metrics": {"test/target/acc": score, "test/target/loss": 1.0, "test/source/acc": 0.25},
            "parameters": {"total": 30, "trainable": 20},
            "time": {"fit_s": 2.0, "total_s": 3.0},
            "seeds": {"train": cfg.seed},
            **self.more,
        }
        (folder / "results.json").write_text(json.dumps(results))
        return results

    def folders(self, kind: str = "runs") -> list[Path]:
        """Run or sweep folders under logs/."""
        return sorted(self.root.glob(f"logs/*/{kind}/*"))
