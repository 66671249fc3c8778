"""Checkpoints of run folders: where to go on from, what was selected, and what is kept of a network."""

import math
import pickle
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from graft.compress.base import COMPRESSION
from graft.errors import GraftError, first_line
from graft.experiment import Experiment
from graft.federated.federation import FEDERATION
from graft.files import written_whole
from graft.runs.folder import BEST, CHECKPOINTS, LAST_CHECKPOINT, PREVIOUS, RUN_FILES, RunFolder
from graft.runs.process import is_main_process
from graft.selection.base import of_validation, rank
from graft.weights.files import damage_of


def to_resume(experiment: Experiment) -> Path | None:
    """The checkpoint that `resume` names: this run folder's last one, or a path."""
    resume, folder, epochs = experiment.config["resume"], experiment.folder, experiment.epochs
    if resume in (None, False):
        return None
    checkpoint = folder / LAST_CHECKPOINT if resume is True else Path(resume)
    if not checkpoint.is_file():
        raise GraftError(
            f"resume={resume}: there is no checkpoint at {checkpoint}. Give the path of a .ckpt file, or name the "
            "folder of the run to go on with: resume=true hydra.run.dir=logs/<name>/runs/<time>_<id>"
        )
    checkpoint, content = readable(checkpoint, or_previous=resume is True)
    try:
        done = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    except (KeyError, TypeError):
        raise GraftError(
            f"resume={checkpoint}: this is no checkpoint of a training run. To start from its weights, use "
            f"backbone.weights={checkpoint}."
        ) from None
    if done > epochs:  # as many are fine: a run that was stopped after its last epoch has only its test to do
        raise GraftError(
            f"resume={checkpoint}: it has trained {done} epochs already, more than training.epochs={epochs}. "
            f"Set training.epochs={done + 1} or more."
        )
    if resume is True:
        of_run(content, checkpoint, RunFolder(folder).checkpoint_ids)
    best_of(folder, checkpoint)  # refuses before training what could not be selected after it
    return checkpoint


def compression_in(resumed: Path | None) -> dict[str, Any] | None:
    """The state of the compression in the checkpoint to go on from; None without one."""
    return None if resumed is None else load(resumed).get(COMPRESSION)


def readable(checkpoint: Path, or_previous: bool) -> tuple[Path, dict[str, Any]]:
    """A checkpoint that is whole, and its content: this one, or the one before it where it is torn, which is said."""
    try:
        return checkpoint, load_whole(checkpoint)
    except GraftError as error:
        previous = checkpoint.with_name(PREVIOUS)
        if not or_previous or not previous.is_file():
            raise
        torn = error
    try:
        content = load_whole(previous)
    except GraftError:
        raise torn from None
    if is_main_process():
        print(f"{str(torn).partition('). ')[0]}): going on from the checkpoint before it, {previous}")
    return previous, content


def load_whole(file: Path) -> dict[str, Any]:
    """A checkpoint's content, of which every byte is as it was written; GraftError for one that is not."""
    content = load(file)
    try:
        damaged = damage_of(file)
    except (OSError, BadZipFile) as error:
        damaged = first_line(error)
    if damaged is not None:
        raise torn_checkpoint(file, f"it is damaged in {damaged}")
    return content


def load_selected(experiment: Experiment, resumed: Path | None, trainer: pl.Trainer) -> dict[str, Any]:
    """Put the selected checkpoint's weights into the module; returns its epoch and validation metrics.

    A run that resumed another folder's checkpoint selects among that folder's best and its own. In a federation over a
    network the server selects.
    """
    federation, module = experiment.data.federation, experiment.module
    selected = federation.outcome(module) if federation else None
    if selected is None:
        selected = select(experiment, resumed, trainer)
    if federation:
        federation.tell(selected, module)
    return selected


def select(experiment: Experiment, resumed: Path | None, trainer: pl.Trainer) -> dict[str, Any]:
    """The same, where nobody else has selected."""
    module, rule = experiment.module, experiment.rule
    candidates = [one for one in best_of(experiment.folder, resumed) if rule.may_choose(one["epoch"])]
    monitor = rule.monitor(module.tasks)
    if monitor is None or not candidates:
        metrics = of_validation(trainer.callback_metrics)
        return {
            "epoch": trainer.current_epoch - 1,
            "metrics": metrics,
            "rule": rule.name if monitor is None else "last",
        }
    higher = rule.higher_is_better(module.tasks)
    best = max(candidates, key=lambda checkpoint: rank(checkpoint["metrics"].get(monitor, math.nan), higher))
    module.load_state_dict(best["state_dict"])
    if experiment.data.federation:
        experiment.data.federation.take(best.get(FEDERATION))
    return {"epoch": best["epoch"], "metrics": best["metrics"], "rule": rule.name}


def best_of(folder: Path, resumed: Path | None) -> list[dict[str, Any]]:
    """The best weights of this run and of the one that it resumed; GraftError where a file there is of another run."""
    places: dict[Path, Collection[str | None]] = {folder / CHECKPOINTS: RunFolder(folder).checkpoint_ids}
    if resumed and resumed.parent not in places:
        other = RunFolder(resumed.parent.parent).record
        of_resumed = load(resumed).get("run_id")
        places[resumed.parent] = {of_resumed, None} if other and other.adopted else {of_resumed}
    files = {checkpoints / BEST: ids for checkpoints, ids in places.items()}
    return [of_run(load(file), file, ids) for file, ids in files.items() if file.is_file()]


def load(file: Path) -> dict[str, Any]:
    """A checkpoint's content; of its tensors no more is read than is used. GraftError for one that cannot be read."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        why = first_line(error) if is_zipfile(file) else "its end is missing, or it is another kind of file"
        raise torn_checkpoint(file, why) from None


def torn_checkpoint(file: Path, why: str) -> GraftError:
    """The message on a checkpoint that cannot be read, with what to do."""
    beside, previous = file.with_name(BEST), file.with_name(PREVIOUS)
    if file.name == BEST:
        advice = "Delete it: resume=true then goes on from last.ckpt and chooses among the epochs that follow"
    elif file.name == LAST_CHECKPOINT.name and previous.is_file():
        advice = f"To go on from the checkpoint before it: resume={previous}"
    elif beside.is_file():
        advice = f"To start from the best weights of before: backbone.weights={beside} in a new folder"
    else:
        advice = "Delete its run's folder and train again"
    return GraftError(f"{file} cannot be read ({why}). {advice}.")


def of_run(content: dict[str, Any], file: Path, ids: Collection[str | None]) -> dict[str, Any]:
    """The content of a checkpoint of one of these runs; GraftError where it is of another."""
    if content.get("run_id") not in ids:
        raise GraftError(
            f"{file} is of another run ({content.get('run_id') or 'without an id'}) than its folder "
            f"({' or '.join(one or 'without an id' for one in ids)}): it was put there by hand or by another process. "
            "Move it away, or train in a new folder."
        )
    return content


@rank_zero_only
def save_network(experiment: Experiment, name: str) -> None:
    """Backbone and heads as plain weights, for `backbone.weights=<file>` and for soups."""
    file = experiment.folder / CHECKPOINTS / name
    file.parent.mkdir(exist_ok=True)
    module = experiment.module
    with written_whole(file) as whole:
        torch.save({"backbone": module.backbone.state_dict(), "heads": module.heads.state_dict()}, whole)


def drop_last(folder: Path) -> None:
    """Of a sweep's finished job keep the tested weights alone: optimizer states of 144 jobs fill a disk."""
    drop_previous(folder)
    if (folder / CHECKPOINTS / BEST).exists():
        (folder / LAST_CHECKPOINT).unlink(missing_ok=True)


def drop_all(folder: Path) -> None:
    """Of a job that is not its sweep's best, where the config asks for that, or of a trial that was given up."""
    for name in RUN_FILES:
        if name.startswith(f"{CHECKPOINTS}/"):
            (folder / name).unlink(missing_ok=True)


def drop_previous(folder: Path) -> None:
    """Of a finished run one checkpoint to go on from is enough."""
    (folder / CHECKPOINTS / PREVIOUS).unlink(missing_ok=True)


def kept(folder: Path) -> Iterator[str]:
    """What a training that diverged has left of the time before, and how to use it."""
    best, last = folder / CHECKPOINTS / BEST, folder / LAST_CHECKPOINT
    if best.exists():
        yield f"The best weights of before are in {best}"
    if last.exists():
        yield f"To go on from {last} with other settings: resume={last} optimizer.lr=..."


def shape(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Size | None:
    """Shape of a named tensor, None where there is none."""
    return tensors[name].shape if name in tensors else None
