"""`make bench`: what Graft costs beside the work itself. Timings are noisy: quote the ratios and their range.

Figures: seconds until `--help` and until a config error, and an epoch of LeNet on rendered digits through Graft's data
module, module, metrics and CSV over a bare PyTorch loop on the same tensors, interleaved.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPEATS = 5
SAMPLES = 8000
BATCH = 64


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def command(*arguments: str) -> Callable[[], None]:
    """A train.py command as its own process."""
    return lambda: subprocess.run([sys.executable, ROOT / "train.py", *arguments], capture_output=True, check=False)


def epoch_pair() -> tuple[Callable[[], None], Callable[[], None]]:
    """(Graft's epoch, the bare loop's epoch), both on the same images, network and optimizer."""
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from torch import nn

    from graft.backbones.lenet import lenet
    from graft.data.glyphs import Glyphs
    from graft.data.module import TransferDataModule
    from graft.data.transforms import Transform
    from graft.module import SHARED, TransferModule
    from graft.objective import AlphaWeighted
    from graft.rates.uniform import Uniform
    from graft.schedules import Constant
    from graft.strategies.scratch import Scratch
    from graft.tasks import Multiclass
    from graft.tracking import build_loggers

    data = TransferDataModule(Glyphs(samples=SAMPLES), batch_size=BATCH)
    data.load()
    backbone = lenet(size=32, channels=1)
    data.set_input(backbone.input_spec)
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.01, "weight_decay": 0.0, "decay_norms_and_biases": True}

    def graft_epoch() -> None:
        with tempfile.TemporaryDirectory() as folder:
            loggers = build_loggers(
                {}, run_dir=Path(folder), name="bench", config={}, tags=[], group=None, job_type="bench"
            )
            module = TransferModule(
                backbone=backbone,
                heads={SHARED: nn.Linear(backbone.feature_size, 10)},
                tasks={"target": Multiclass()},
                outputs={"target": 10},
                objective=AlphaWeighted(0.0),
                strategy=Scratch(),
                rates=Uniform(),
                schedule=Constant(),
                optimizer=optimizer | {"options": {}},
            )
            trainer = pl.Trainer(
                max_epochs=1,
                limit_val_batches=0,
                accelerator="cpu",
                logger=loggers,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
            )
            trainer.fit(module, data)

    train = data.domains["target"].train
    images = Transform(backbone.input_spec)(train.inputs[torch.arange(len(train))])  # made once, outside the timing
    labels = train.labels

    def bare_epoch() -> None:
        network = nn.Sequential(backbone, nn.Linear(backbone.feature_size, 10)).train()
        sgd = torch.optim.SGD(network.parameters(), lr=0.01)
        for indices in torch.randperm(len(labels)).split(BATCH):
            sgd.zero_grad()
            F.cross_entropy(network(images[indices]), labels[indices]).backward()
            sgd.step()

    return graft_epoch, bare_epoch


def main() -> None:
    """Measure, print a table and write logs/bench.json."""
    figures = {
        "--help, s": [seconds(command("--help")) for _ in range(REPEATS)],
        "config error, s": [seconds(command("objective.alpha=2")) for _ in range(REPEATS)],
    }
    graft_epoch, bare_epoch = epoch_pair()
    graft_epoch(), bare_epoch()  # warm-up
    pairs = [(seconds(graft_epoch), seconds(bare_epoch)) for _ in range(REPEATS)]
    figures["LeNet epoch, Graft over bare loop"] = [ours / bare for ours, bare in pairs]

    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"\n{machine}; median and range of {REPEATS}")
    for name, values in figures.items():
        print(f"{name:40} {statistics.median(values):7.3f}   {min(values):.3f} to {max(values):.3f}")
    report = {"machine": machine, "figures": figures}
    (ROOT / "logs" / "bench.json").write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
