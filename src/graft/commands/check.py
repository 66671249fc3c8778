"""Try a part of your own as Graft's tests try its parts: `graft check strategy=mine --config-dir=conf 'allow=[mypkg]'`.

Builds, trains and resumes a small run with it in a temporary folder, on the CPU and in less than a minute, and prints
a line a check. Overrides after the part change that run, such as data and backbone for a part that is not for images.
A data source gets a backbone for what it holds, a task for its labels, and a few batches of it are enough.
"""

import copy
import io
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from torch import Tensor

from graft import load_run
from graft.backbones.contract import check_backbone
from graft.cli.notebook import check_composed, composed
from graft.config.facts import attribute
from graft.data.stream import Stream
from graft.errors import GraftError, Interrupted
from graft.experiment import Experiment, assemble
from graft.module import TransferModule
from graft.run import pretrained, train
from graft.runs import checkpoints
from graft.runs.context import run_context
from graft.runs.folder import BEST, CHECKPOINTS, LAST_CHECKPOINT, RunFolder
from graft.training.fitting import Fitting, fit
from graft.training.optim import parts

SMALL = ("training.epochs=4", "training.threads=1", "trainer=cpu", "logger=csv", "data.num_workers=0")
DIGITS = (
    *("backbone=lenet", "backbone.weights=source", "data.image_size=16", "data.source.samples=300"),
    *("data.labels_per_class=4", "data.batch_size=16", "pretrain.epochs=1"),
)
SOURCE = "data/domain"  # the group of sources
OF_SOURCE = (
    *("backbone.weights=null", "strategy=scratch", "data.batch_size=16", "trainer.limit_train_batches=4"),
    *("trainer.limit_val_batches=4", "trainer.limit_test_batches=4"),
)
BY_MODALITY = {
    "image": ("data=image_folder", "backbone=lenet", "data.image_size=16"),
    "text": ("data=text", "backbone=lstm"),
    "audio": ("data=speech", "backbone=mel_cnn"),
    "table": ("data=table", "backbone=mlp"),
    "sequence": ("data=sequences", "backbone=lstm_sequence"),
}
TASKS = {  # by what labels are
    "numbers": ("task=regression",),
    "multilabel": ("task=multilabel",),
    "texts": ("task=seq2seq", "head=gru_decoder"),
}
SAMPLES = 4  # on which predictions are compared
RTOL, ATOL = 1e-4, 1e-5
FOLDER = "--config-dir="
LISTS = ("term", "logger")  # groups of which several options may be chosen
USAGE = "graft check <group>=<option> [--config-dir=conf] ['allow=[mypkg]'] [overrides]"


class Failure(Exception):
    """What a part does not keep."""


@dataclass
class Trial:
    """A small run with the part, and what the checks have found of it so far."""

    overrides: list[str]
    folders: list[Path]  # with options, beside Graft's
    place: Path
    config: dict[str, Any] = field(default_factory=dict)

    def config_in(self, folder: str, **keys: Any) -> dict[str, Any]:
        """The config of a run in a folder of its own."""
        config = copy.deepcopy(self.config) | keys
        config["paths"]["run_dir"] = str(self.place / folder)
        return config

    def built(self, folder: str) -> Experiment:
        """The part built and prepared again, with pretrained weights, as every run with this config begins.

        Once a run has trained, its compression is as that one had it.
        """
        config, last = self.config_in(folder), self.place / "whole" / LAST_CHECKPOINT
        with RunFolder(config["paths"]["run_dir"]).owned(adopt=False):
            return begin(config, last if last.is_file() else None)

    @property
    def last(self) -> Mapping[str, Tensor]:
        """The state after training."""
        return checkpoints.load(self.place / "whole" / LAST_CHECKPOINT)["state_dict"]


def main(arguments: list[str]) -> int:
    """Print a line a check; returns 0 where all passed, 1 where one failed."""
    folders = [Path(one.partition("=")[2]) for one in arguments if one.startswith(FOLDER)]
    overrides = overrides_of(arguments, folders)
    if not overrides:
        print(USAGE)
        return 2
    failed = 0
    with tempfile.TemporaryDirectory(prefix="graft-check-") as place:
        trial = Trial(overrides, folders, Path(place))
        is_source = any(one.startswith(f"{SOURCE}=") for one in arguments)
        for check in CHECKS if is_source else (one for one in CHECKS if one is not reads_the_same):
            what = (check.__doc__ or "").strip().rstrip(".")
            try:
                with quiet():
                    found = check(trial)
            except Exception as error:
                failed += 1
                print(f"FAIL  {what}: {reason(error)}", flush=True)
                if check in NEEDED:
                    print("      the other checks need this one", flush=True)
                    break
            else:
                print(f"pass  {what}" + (f": {found}" if found else ""), flush=True)
    return 1 if failed else 0


def overrides_of(arguments: list[str], folders: Sequence[Path] = ()) -> list[str]:
    """The overrides of the small run with what was typed; empty where no part is named."""
    words = [one for one in arguments if not one.startswith(FOLDER)]
    part = next((one for one in words if not one.startswith(("allow=", "+", "~"))), "")
    group, _, option = part.partition("=")
    if not option:
        return []
    if group in LISTS and not option.startswith("["):
        words[words.index(part)] = f"{group}=[{option}]"
    if group == SOURCE:
        words[words.index(part)] = f"{SOURCE}@data.target={option}"
    if any(one.startswith(("data=", "experiment=")) for one in words):
        return [*SMALL, *words]
    return [*SMALL, *(for_source(words, folders) if group == SOURCE else DIGITS), *words]


def for_source(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """What a small run of a source needs for its modality and its labels."""
    target: Any = {}
    with suppress(GraftError, HydraException), composed(("data=image_folder", *words), {}, folders) as (cfg, _, _):
        target = OmegaConf.to_container(cfg.data.target, resolve=False)
    modality = attribute(str(target.get("_target_")), "modality", "image")
    return [*BY_MODALITY[modality], *OF_SOURCE, *TASKS.get(target.get("label_kind", ""), ())]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what runs print and warn of."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def reason(error: Exception) -> str:
    """What went wrong: the message alone where it is meant for people."""
    return str(error) if isinstance(error, Failure | GraftError) else f"{type(error).__name__}: {error}"


# The checks, whose first lines are what is printed


def composes(trial: Trial) -> None:
    """the config composes, and its keys are right."""
    cache = f"++paths.cache_dir={trial.place / 'cache'}"
    trial.config = check_composed([*trial.overrides, f"++paths.run_dir={trial.place}", cache], trial.folders)


def builds(trial: Trial) -> None:
    """it builds."""
    trial.built("before")


def reads_the_same(trial: Trial) -> str:
    """its samples, labels and splits are the same when they are read again, and no sample is in two splits."""
    data, again = (assemble(trial.config_in("read")).data.domains["target"] for _ in range(2))
    if data.fingerprint != again.fingerprint:
        raise Failure("the fingerprint differs, by which caches and resumed runs know the samples")
    places: dict[str, str] = {}
    for name in ("train", "val", "test"):
        one, other = (seen(getattr(each, name)) for each in (data, again))
        same = (one.fingerprint, one.places and [*one.places]) == (other.fingerprint, other.places and [*other.places])
        if not same or not torch.equal(one.labels, other.labels):
            raise Failure(f"{name} has other samples or labels")
        for index in range(min(SAMPLES, len(one))):
            first, second = one.inputs[index], other.inputs[index]
            if isinstance(first, Tensor) and not torch.equal(first, second):
                raise Failure(f"{name}: sample {index} is another one")
        own = one.places or ()
        for place in own if len({*own}) == len(own) else ():  # names may stand for several
            if places.setdefault(place, name) != name:
                raise Failure(f"{place} is in {places[place]} and in {name}")
    return data.report.sentence() if data.report else ""


def seen(split: Any) -> Any:
    """A split, or of a stream the samples that were read beforehand."""
    return split.first if isinstance(split, Stream) else split


def accounts_for_every_parameter(trial: Trial) -> None:
    """every parameter is in one part, and each part of the backbone in one stage."""
    module = trial.built("parameters").module
    check_backbone(module.backbone)
    known = {id(p) for members in parts(module.backbone, module.heads, module.terms).values() for _, p in members}
    if stray := [name for name, parameter in of_training(module) if id(parameter) not in known]:
        raise Failure(f"{stray[0]} and {len(stray) - 1} more are in none")


def trains(trial: Trial) -> None:
    """it trains, tests and writes its results."""
    train(trial.config_in("whole"))


def moves_what_it_says(trial: Trial) -> None:
    """what is frozen stays as it was, and what trains changes."""
    experiment = trial.built("moves")
    module, after = experiment.module, trial.last
    trained = module.trained_members(module.phases(experiment.epochs))
    learns = {id(parameter) for members in trained.values() for _, parameter in members}
    before = dict(of_training(module))
    moved = {name for name, parameter in before.items() if not torch.equal(parameter, after[name])}
    if wrong := [name for name in moved if id(before[name]) not in learns]:
        raise Failure(f"{wrong[0]} is frozen and changed, with {len(wrong) - 1} more")
    ids = {id(before[name]) for name in moved}
    for part, members in trained.items():
        if members and not any(id(parameter) in ids for _, parameter in members):
            raise Failure(f"{part} should train and stayed as it was")


def resumes(trial: Trial) -> None:
    """a run that is stopped in an epoch and resumed ends with the weights of the whole one, bit by bit."""
    fit_once(trial.config_in("stopped"), stop=True)
    state = fit_once(trial.config_in("stopped", resume=True), stop=False)
    different = [name for name, value in trial.last.items() if not torch.equal(value, state[name])]
    if different:
        raise Failure(f"{len(different)} tensors differ, {different[0]} first. Is something random, or kept outside?")


def state_is_whole(trial: Trial) -> None:
    """its state loads into a new one, which predicts the same."""
    one, other = trial.built("one").module, trial.built("other").module
    one.load_state_dict(trial.last)
    other.load_state_dict(one.state_dict())
    compare(predictions(one), predictions(other), "the new one predicts otherwise")


def merges(trial: Trial) -> None:
    """merging what the strategy added changes no prediction."""
    module = trial.built("merged").module
    module.load_state_dict(trial.last)
    before = predictions(module)
    module.strategy.merge(module.backbone)
    compare(before, predictions(module), "it predicts otherwise once merged")


def model_stands_alone(trial: Trial) -> None:
    """its model folder predicts what the tested network does."""
    module, run = trial.built("alone").module, trial.place / "whole"
    best = run / CHECKPOINTS / BEST
    module.load_state_dict(checkpoints.load(best if best.is_file() else run / LAST_CHECKPOINT)["state_dict"])
    module.compression.finish()
    module.strategy.merge(module.backbone)
    model = load_run(run, allow=trial.config["allow"])
    with torch.no_grad():
        alone = model.logits(module.backbone.example_inputs(SAMPLES))
    compare(predictions(module), alone, "load_run predicts otherwise")


CHECKS: tuple[Callable[[Trial], str | None], ...] = (
    *(composes, reads_the_same, builds, accounts_for_every_parameter, trains, moves_what_it_says),
    *(resumes, state_is_whole, merges, model_stands_alone),
)
NEEDED = (composes, reads_the_same, builds, trains)


# Small runs


def begin(config: Mapping[str, Any], resumed: Path | None = None) -> Experiment:
    """An experiment before its first step, or as it was compressed in a checkpoint."""
    experiment = assemble(config)
    pretrained(experiment, run_context(), checkpoints.compression_in(resumed))
    return experiment


def fit_once(config: Mapping[str, Any], *, stop: bool) -> Mapping[str, Tensor]:
    """Train, from the folder's last checkpoint where the config resumes; returns the state after it."""
    with RunFolder(config["paths"]["run_dir"]).owned(adopt=bool(config["resume"])):
        last = Path(config["paths"]["run_dir"]) / LAST_CHECKPOINT
        experiment = begin(config, last if config["resume"] else None)
        fitting = Fitting(experiment, [], in_sweep=False)
        trainer: Any = fitting.trainer  # whose callbacks have no types
        trainer.callbacks += [Stop(last)] if stop else []
        with suppress(Interrupted):
            fit(fitting.trainer, experiment, last if config["resume"] else None)
        return experiment.module.state_dict()


def of_training(module: TransferModule) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Named parameters without those that a term keeps for itself, such as a teacher's, which no gradient moves."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad or not name.startswith("terms."):
            yield name, parameter


class Stop(pl.Callback):
    """Ends a run as Ctrl-C would, after the first batch of the second epoch."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save and leave."""
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.file)
            raise Interrupted("stopped")


@torch.no_grad()
def predictions(module: TransferModule) -> Tensor:
    """Logits of the target's head on a few inputs, in eval mode."""
    return module.eval()(module.backbone.example_inputs(SAMPLES))


def compare(found: Tensor, expected: Tensor, otherwise: str) -> None:
    """Failure where two predictions differ by more than rounding."""
    if found.shape != expected.shape or not torch.allclose(found, expected, RTOL, ATOL):
        largest = (found - expected).abs().max().item() if found.shape == expected.shape else float("nan")
        raise Failure(f"{otherwise}, by {largest:.2g} at most")
