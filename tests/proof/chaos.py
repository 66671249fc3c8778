"""`make chaos`: runs that are killed and gone on with are the uninterrupted ones, bit for bit.

Strategies and options that have a state of their own meet in a pairwise design; each cell is trained once without a
stop, and once for each stop: killed with SIGKILL there, and gone on with by `resume=true`. What is done is kept in
logs/chaos/, so that the same command goes on after an interruption.
"""

import argparse
import csv
import gc
import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from graft.callbacks import checkpoints
from graft.cli.job import execute
from graft.model import predictions
from graft.report import plots
from graft.strategies import bit_hyperrule
from tests.proof.forked import forked
from tests.proof.pairwise import Cell, Pair, allowed_pairs, design, pairs_of
from tests.small_run import config_in, train_in

FOLDER = Path(__file__).parents[2] / "logs" / "chaos"
CELLS = 100
STOPS = ("step", "epoch", "phase")
KILL = "tests.proof.chaos.Kill"
PROCESSES = 2

BASE = [
    "name=chaos",
    "backbone.weights=source",
    "data.image_size=32",
    "data.source.samples=80",
    "data.labels_per_class=4",
    "data.batch_size=16",
    "data.eval_batch_size=64",
    "trainer.limit_val_batches=1",
    "trainer.limit_test_batches=1",
    "pretrain.epochs=1",
    "training.epochs=4",
    "training.threads=1",
    "training.log_every_steps=1",
    "trainer=cpu",
    "trainer.precision=32-true",
    "logger=csv",
    "save.model=none",
    "allow=[tests]",
]

# Overrides of every value; each factor's first value is the usual one.
FACTORS: dict[str, dict[str, list[str]]] = {
    "strategy": {
        name: [f"strategy={name}", *more]
        for name, more in {
            "full": [],
            "scratch": [],
            "frozen": [],
            "lp_ft": [],
            "gradual": [],
            "fine_tune": [],
            "surgical": [],
            "freeze_until": [],
            "discriminative": [],
            "layer_decay": [],
            "bitfit": [],
            "norm_only": [],
            "lora": ["strategy.r=2"],
            "adapter": ["strategy.bottleneck=4"],
            "ia3": [],
            "peft": ["strategy.tuner=lokr", "+strategy.options.r=2"],
            "bit_hyperrule": ["data.batch_size=16"],
        }.items()
    },
    "averaging": {name: [f"averaging={name}"] for name in ("none", "ema", "swa")},
    "schedule": {name: [f"scheduler={name}"] for name in ("cosine", "constant", "one_cycle", "plateau", "step")},
    "backbone": {
        "lenet": ["backbone=lenet"],
        "resnet": ["backbone=timm", "backbone.name=test_resnet"],
        "vit": ["backbone=timm", "backbone.name=test_vit"],
    },
    "stochastic_depth": {"0": [], "0.5": ["training.stochastic_depth=0.5"]},
    "mixing": {
        "none": [],
        "mixup": ["training.mixup_alpha=0.2"],
        "cutmix": ["training.cutmix_alpha=1.0"],
        "both": ["training.mixup_alpha=0.2", "training.cutmix_alpha=1.0"],
    },
    "resizing": {"none": [], "0.5": ["training.progressive_resizing.initial_scale=0.5"]},
    "accumulation": {"1": [], "2": ["training.accumulate_batches=2"]},
    "regularizer": {name: [] for name in ("none", "l2sp", "delta", "bss", "stochnorm")},
    "distillation": {name: [] for name in ("none", "feature_distillation", "co_tuning", "lwf", "bi_tuning")},
    "unlabelled": {name: [] for name in ("none", "mean_teacher", "simclr", "mcd")},
    "objective": {
        "target": [],
        "alpha": ["objective.alpha=0.3", "objective.alpha_end=0.7"],
        "additive": ["objective=additive"],
    },
    "bn": {name: [f"bn={name}"] for name in ("joint", "separate", "domain_specific")},
    "optimizer": {name: [f"optimizer={name}"] for name in ("adamw", "sgd", "adam")},
    "head": {name: [f"head={name}"] for name in ("linear", "mlp")},
    "augment": {name: [f"data.augment={name}"] for name in ("none", "light", "randaugment")},
    "balance": {name: [f"data.balance={name}"] for name in ("none", "sampler", "weights")},
    "epoch": {name: [f"data.epoch={name}"] for name in ("target", "longest", "5")},
    "clipping": {"none": [], "1": ["training.gradient_clip_norm=1.0"]},
    "features": {"cached": [], "computed": ["cache.features=false"]},
    "selection": {name: [f"selection={name}"] for name in ("target_val", "last", "entropy", "source_val")},
    "wise_ft": {"none": [], "alphas": ["training.wise_ft_alphas=[0,0.5,1]"]},
}
TERMS = ("regularizer", "distillation", "unlabelled")

# Pairs that the config check refuses: (factor, values, factor, values).
CLASHES: list[tuple[str, Sequence[str], str, Sequence[str]]] = [
    ("strategy", ["scratch"], "regularizer", ["l2sp", "delta", "stochnorm"]),
    ("strategy", ["scratch"], "distillation", ["feature_distillation", "co_tuning", "lwf"]),
    ("strategy", ["scratch"], "wise_ft", ["alphas"]),
    ("strategy", ["lp_ft", "fine_tune", "bit_hyperrule"], "schedule", ["plateau"]),
    ("strategy", ["bit_hyperrule"], "optimizer", ["adamw", "adam"]),
    ("averaging", ["swa"], "schedule", ["plateau"]),
    ("strategy", ["norm_only"], "backbone", ["lenet"]),
    ("backbone", ["lenet"], "stochastic_depth", ["0.5"]),
    ("backbone", ["lenet"], "resizing", ["0.5"]),
    ("backbone", ["lenet", "vit"], "regularizer", ["stochnorm"]),
    ("mixing", ["mixup", "cutmix", "both"], "distillation", ["bi_tuning"]),
    ("mixing", ["mixup", "cutmix", "both"], "unlabelled", ["mean_teacher", "simclr"]),
    ("head", ["mlp"], "distillation", ["bi_tuning"]),
    ("selection", ["last", "entropy", "source_val"], "wise_ft", ["alphas"]),
    ("selection", ["last"], "schedule", ["plateau"]),
]


def clash(pair: Pair) -> bool:
    """Whether two values are refused together."""
    values = dict(pair)
    return any(values.get(a) in these and values.get(b) in those for a, these, b, those in CLASHES)


def cells(number: int) -> Iterator[Cell]:
    """The first cells of the design."""
    return itertools.islice(design({name: list(values) for name, values in FACTORS.items()}, clash), number)


def overrides_of(cell: Cell) -> list[str]:
    """What one would type for a cell."""
    chosen = [word for name, value in cell.items() for word in FACTORS[name][value]]
    terms = [cell[name] for name in TERMS if cell[name] != "none"]
    return [*BASE, *chosen, *([f"term=[{','.join(terms)}]"] if terms else [])]


class Kill(pl.Callback):
    """Ends the process with SIGKILL at a stop, where nothing can be saved any more."""

    def __init__(self, stop: str) -> None:
        self.stop = stop

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Inside the third epoch's first step: gradients are there, and the weights have not moved."""
        if self.stop == "step" and trainer.current_epoch == 2:
            kill()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After an epoch's validation, before its checkpoint."""
        if self.stop == "epoch" and trainer.current_epoch == 1:
            kill()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Where the strategy's next phase begins, or the average's, or the last epoch where nothing changes."""
        if self.stop == "phase" and trainer.current_epoch == change_of_phase(pl_module):
            kill()


def change_of_phase(module: Any) -> int:
    """The first epoch after the first one in which something else trains than before."""
    ends = [end for end in itertools.accumulate(phase.epochs for phase in module._phases) if end < 4]
    return min([*ends, 3])


def kill() -> None:
    """As the kernel does where memory is short, or a scheduler out of patience."""
    os.kill(os.getpid(), signal.SIGKILL)


def warm(folder: Path) -> None:
    """Import all that runs import, by a run in this process, so that its children begin at once."""
    import peft  # noqa: F401
    import timm  # noqa: F401

    checkpoints.SHORTEST_S, checkpoints.LARGEST_SHARE = 0.0, math.inf  # a checkpoint at the end of every epoch
    bit_hyperrule.SMALL = 20  # steps, of 500
    plots.write_all = lambda *_: None  # pictures are half of the time of such a run
    torch.set_num_threads(1)
    with (folder / "warm.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        train_in(folder, *BASE, "backbone=lenet", folder="warm", cache=folder / "cache")
    shutil.rmtree(folder / "warm")
    gc.collect()
    gc.freeze()  # a collection in a child would copy all that it shares with this process


def check(cell: Cell, stops: Sequence[str], folder: Path, cache: Path) -> Iterator[dict[str, Any]]:
    """Train a cell, kill it at every stop, go on, and compare; folders stay where something differs."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = config_in(folder, *overrides_of(cell), folder="whole", cache=cache)
    whole, all_same = folder / "whole", True
    code = trained(config, whole)
    for stop in stops:
        started, one = time.perf_counter(), folder / stop
        kill = {"callbacks": config["callbacks"] | {"kill": {"_target_": KILL, "stop": stop}}}
        if code:
            found = [f"the uninterrupted run ended with {code}: {last_line(whole)}"]
        elif (killed := trained(config | kill, one)) != -signal.SIGKILL:
            found = [f"the run that is killed ended with {killed}: {last_line(one)}"]
        elif resumed := trained(config | {"resume": True}, one):
            found = [f"the resumed run ended with {resumed}: {last_line(one)}"]
        else:
            found = differences(whole, one)
        all_same = all_same and not found
        yield {"stop": stop, "differences": found, "seconds": round(time.perf_counter() - started, 2)}
    if all_same:
        shutil.rmtree(folder)


def trained(config: Mapping[str, Any], folder: Path) -> int:
    """Train in a child; its exit code."""
    folder.mkdir(exist_ok=True)
    own = config | {"paths": config["paths"] | {"run_dir": str(folder)}}
    return forked(lambda: execute(own), folder.with_suffix(".log"))


def last_line(folder: Path) -> str:
    """How what a run printed ends."""
    return folder.with_suffix(".log").read_text().strip().rpartition("\n")[2]


def differences(whole: Path, resumed: Path) -> list[str]:
    """What is not the same in two run folders: weights, optimizer, averages, metrics, curves, predictions."""
    found = []
    for name in ("last.ckpt", "best.ckpt", "merged.pt", "wise_ft.pt"):
        files = [folder / "checkpoints" / name for folder in (whole, resumed)]
        if files[0].exists() != files[1].exists():
            found.append(f"{name} is in one folder only")
        elif files[0].exists():
            first, second = (torch.load(file, weights_only=True) for file in files)
            found += [f"{name}: {place}" for place in unequal(comparable(first), comparable(second))]
    first, second = (json.loads((folder / "results.json").read_text()) for folder in (whole, resumed))
    for key in ("metrics", "selection", "score", "confusion", "parameters"):
        found += [f"results.json: {key}{place}" for place in unequal(first[key], second[key])]
    found += [f"metrics.csv{place}" for place in unequal(curves(whole), curves(resumed))]
    kept = [predictions.read(folder / "predictions.parquet") for folder in (whole, resumed)]
    return found + [f"predictions{place}" for place in unequal(*kept)]


def comparable(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint without what names its run, what a clock says, and Lightning's count of the steps of schedulers."""
    kept = {key: value for key, value in checkpoint.items() if key not in ("run_id", "config")}
    if "callbacks" in kept:
        kept["callbacks"] = {key: value for key, value in kept["callbacks"].items() if key != "Throughput"}
        kept["loops"]["fit_loop"].pop("epoch_loop.scheduler_progress")
    return kept


def curves(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without what a clock says."""
    with (folder / "metrics.csv").open() as file:
        return [
            {key: value for key, value in row.items() if "time" not in key and "per_s" not in key}
            for row in csv.DictReader(file)
        ]


def unequal(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """The places at which two nested values differ in type or in a bit."""
    if type(first) is not type(second):
        yield f"{place}: {type(first).__name__}, {type(second).__name__}"
    elif isinstance(first, Mapping):
        for key in {**first, **second}:
            if key not in first or key not in second:
                yield f"{place}.{key}: in one only"
            else:
                yield from unequal(first[key], second[key], f"{place}.{key}")
    elif isinstance(first, list | tuple):
        if len(first) != len(second):
            yield f"{place}: {len(first)}, {len(second)} items"
        for number, (one, other) in enumerate(zip(first, second, strict=False)):
            yield from unequal(one, other, f"{place}[{number}]")
    elif isinstance(first, torch.Tensor):
        if first.shape != second.shape or not torch.equal(first.nan_to_num(), second.nan_to_num()):
            yield f"{place}: tensors differ"
    elif first != second and not (first != first and second != second):
        yield f"{place}: {first!r}, {second!r}"[:200]


def key_of(cell: Cell) -> str:
    """Names a cell by all that it types."""
    return hashlib.sha256(" ".join(overrides_of(cell)).encode()).hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the cells that are not done; exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--cells", type=int, default=CELLS, help="cells of the design")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where what is done is kept")
    parser.add_argument("--again", action="store_true", help="forget what is done")
    options = parser.parse_args(arguments)
    folder, done = options.folder, options.folder / "done.jsonl"
    if options.again:
        done.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    chosen, finished = list(cells(options.cells)), read(done)
    todo = [cell for cell in chosen if any((key_of(cell), stop) not in finished for stop in STOPS)]
    print(f"{len(chosen)} cells x {len(STOPS)} stops, {len(chosen) - len(todo)} cells done before", flush=True)
    started = time.perf_counter()
    if todo:
        warm(folder)
        workers = [work(todo[number::PROCESSES], folder, done) for number in range(PROCESSES)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
        if any(codes):
            print("A worker failed; the same command goes on.", file=sys.stderr)
            return 1
    text, failed = table(chosen, read(done))
    (folder / "table.md").write_text(text)
    print(f"{text}\n{time.perf_counter() - started:.0f} s; {folder / 'table.md'}")
    return int(failed)


def work(todo: Sequence[Cell], folder: Path, done: Path) -> int:
    """A child that checks cells one by one and notes each stop when it is done; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for cell in todo:
            for outcome in check(cell, STOPS, folder / key_of(cell), folder / "cache"):
                with done.open("a") as file:
                    file.write(json.dumps({"key": key_of(cell), **outcome, "cell": cell}) + "\n")
                print("different" if outcome["differences"] else "same", outcome["stop"], key_of(cell), flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def read(done: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What is done, the last line of a cell and stop; a line that was torn by a kill is left out."""
    found = {}
    for line in done.read_text().splitlines() if done.exists() else ():
        if line.endswith("}}"):
            outcome = json.loads(line)
            found[outcome["key"], outcome["stop"]] = outcome
    return found


def table(chosen: Sequence[Cell], finished: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[str, bool]:
    """How many cells with each value are the same after each stop, in Markdown, and whether any is not."""
    tried, same, lines = Counter(), Counter(), []
    for cell in chosen:
        for stop in STOPS:
            outcome = finished[key_of(cell), stop]
            for place in [*cell.items(), ("all", "")]:
                tried[place, stop] += 1
                same[place, stop] += not outcome["differences"]
            if outcome["differences"]:
                more = "; ".join(outcome["differences"][:3])[:400]
                lines.append(f"- {key_of(cell)} {stop}: {more}\n  `{' '.join(overrides_of(cell)[len(BASE) :])}`")
    places = [("all", ""), *((name, value) for name, values in FACTORS.items() for value in values)]
    head = [f"| | {' | '.join(STOPS)} |", f"|---|{'---:|' * len(STOPS)}"]
    rows = [
        f"| {' '.join(place).strip()} | " + " | ".join(f"{same[place, s]} of {tried[place, s]}" for s in STOPS) + " |"
        for place in places
    ]
    met = len(set().union(*map(pairs_of, chosen)))
    allowed = len(allowed_pairs({name: list(values) for name, values in FACTORS.items()}, clash))
    total = sum(same[("all", ""), stop] for stop in STOPS)
    title = f"{total} of {len(chosen) * len(STOPS)} are the uninterrupted run bit for bit; {met} of {allowed} pairs met"
    return "\n".join([title, "", *head, *rows, *(["", *lines] if lines else []), ""]), bool(lines)


if __name__ == "__main__":
    sys.exit(main())
