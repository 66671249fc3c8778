"""A fit: the Trainer with the callbacks that an experiment asks for, from the start or from a checkpoint."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from graft.build import build
from graft.cache.features import FeatureCache
from graft.callbacks.batchnorm import RecalibrateBatchNorm
from graft.callbacks.checkpoints import Checkpoints
from graft.callbacks.compilation import Compilation
from graft.callbacks.domain_distance import LogDomainDistance
from graft.callbacks.frozen_features import FrozenFeatures
from graft.callbacks.ledger import LedgerFile
from graft.callbacks.nonfinite import NonFinite
from graft.callbacks.patience import Patience
from graft.callbacks.progress import Progress
from graft.callbacks.pruning import Pruning
from graft.callbacks.throughput import Throughput
from graft.config.conflicts.names import several_processes
from graft.errors import GraftError
from graft.experiment import Experiment
from graft.federated.federation import FEDERATION
from graft.federated.rounds import Rounds
from graft.federated.synthetic import DrawnFeatures, drawn_by_server, in_place_of_samples
from graft.runs import checkpoints
from graft.runs.folder import CHECKPOINTS, RunFolder
from graft.runs.ledger import candidate_epochs
from graft.training.evaluation import Evaluator
from graft.training.trainer import build_trainer, first_device
from graft.weights.averaging import SWA


class Fitting:
    """The Trainer of a run, and those of its callbacks that have something to say afterwards."""

    def __init__(
        self,
        experiment: Experiment,
        loggers: Sequence[Logger],
        in_sweep: bool,
        trial: Mapping[str, Any] | None = None,
    ) -> None:
        config, folder, averaging = experiment.config, experiment.folder, experiment.averaging
        self.throughput = Throughput()
        self.features = FeatureCache(experiment.cache)
        self.nonfinite = NonFinite(folder, config["training"]["on_nonfinite"])
        self.compilation = Compilation() if config["training"]["compile"] else None
        self.test_started = 0.0
        federation = experiment.data.federation
        # A federation rejects what clients send, and has no samples of its own to compute statistics on
        callbacks = [] if federation else [*validated_weights(experiment), self.nonfinite]
        if federation and federation.method.trains_at_clients:
            callbacks.append(federation.make_rounds() or Rounds(federation))
        self.recalibration = next((one for one in callbacks if isinstance(one, RecalibrateBatchNorm)), None)
        if config["training"]["patience"]:
            callbacks.append(patience_callback(experiment))
        callbacks += [build(settings) for settings in config["callbacks"].values() if settings]
        if in_sweep:
            for progress in (one for one in callbacks if isinstance(one, Progress)):
                progress.in_sweep()
        self.checkpoints = checkpoints_callback(experiment, in_sweep)
        callbacks += ledger_callback(experiment)
        callbacks += pruning_callback(experiment, trial) if trial else []
        callbacks += [LogDomainDistance()] if measures_domain_distance(experiment) else []
        callbacks += [self.checkpoints, self.throughput]
        if config["cache"]["features"] and not (federation and federation.trains_elsewhere):
            at_clients = federation is None or federation.method.trains_at_clients
            frozen = (FrozenFeatures if at_clients else DrawnFeatures)(
                self.features,
                config["cache"]["augmented_views"],
                averages=averaging is not None or experiment.swad is not None,
                compiles=config["training"]["compile"],
                tests=config["save"]["ledger"] is not None,
            )
            callbacks.insert(0, frozen)
        callbacks += [self.compilation] if self.compilation else []
        settings = config["trainer"] | ({"reload_dataloaders_every_n_epochs": 1} if federation else {})
        if federation and not federation.validates:
            settings |= {"limit_val_batches": 0}
        self.trainer = build_trainer(settings, config["training"], experiment.epochs, folder, loggers, callbacks)
        self.evaluator: Evaluator = self.trainer


def validated_weights(experiment: Experiment) -> list[Callback]:
    """What decides which weights a validation sees: their average, and BatchNorm's statistics that fit them."""
    averaging = experiment.averaging
    found: list[Callback] = [one for one in (averaging, experiment.swad) if one]
    if experiment.config["training"]["recalibrate_bn"] and not isinstance(averaging, SWA):  # does it for its average
        found.append(RecalibrateBatchNorm())
    return found


def patience_callback(experiment: Experiment) -> Patience:
    """What ends the training where the rule's metric improves no more."""
    rule, tasks, patience = experiment.rule, experiment.module.tasks, experiment.config["training"]["patience"]
    monitor = rule.monitor(tasks)
    assert monitor is not None  # see graft.config.conflicts
    return Patience(monitor, rule.higher_is_better(tasks), patience, lambda: selectable(experiment))


def pruning_callback(experiment: Experiment, trial: Mapping[str, Any]) -> list[Callback]:
    """What tells a study of a trial's validations, and ends one that is behind the others.

    None where several processes train it, or nothing is followed.
    """
    monitor = experiment.rule.monitor(experiment.module.tasks)
    if monitor is None or several_processes(experiment.config["trainer"]):
        return []
    from graft.studies.report import reporter  # Optuna, an extra

    return [Pruning(monitor, reporter(trial, experiment.epochs), lambda: selectable(experiment))]


def ledger_callback(experiment: Experiment) -> list[Callback]:
    """What scores candidate checkpoints by every rule, where `save.ledger` asks for it."""
    if (number := experiment.config["save"]["ledger"]) is None:
        return []
    epochs = candidate_epochs(experiment.epochs, experiment.config["training"]["validate_every_epochs"], number)
    return [LedgerFile(experiment.folder, experiment.rule, epochs, lambda: selectable(experiment))]


def measures_domain_distance(experiment: Experiment) -> bool:
    """Whether validation has both domains, and `report.proxy_a_distance` asks how far apart they are."""
    data, asked = experiment.data, experiment.config["report"]["proxy_a_distance"]
    adapts = data.target_setting == "unsupervised" or any(
        {"source", "target"} <= {*term.domains} for term in experiment.module.terms.values()
    )
    return "source" in data.eval_domains and (adapts if asked == "auto" else asked)


def selectable(experiment: Experiment) -> bool:
    """Whether the present weights may be chosen: compressed as asked, and with an average not before it has begun."""
    averaging, epoch = experiment.averaging, experiment.module.current_epoch
    if not experiment.module.compression.may_choose(epoch):
        return False
    return experiment.rule.may_choose(epoch) and (averaging is None or averaging.started)


def checkpoints_callback(experiment: Experiment, in_sweep: bool) -> Checkpoints:
    """The rule's choice, and where to resume from; of a sweep's finished job the tested weights are kept alone."""
    module, rule, federation = experiment.module, experiment.rule, experiment.data.federation
    monitor = rule.monitor(module.tasks)

    return Checkpoints(
        experiment.folder / CHECKPOINTS,
        monitor,
        higher_is_better=rule.higher_is_better(module.tasks),
        ready=lambda: selectable(experiment),
        keep_last=monitor is None or not in_sweep or not experiment.config["test"],
        run_id=RunFolder(experiment.folder).run_id,
        top_k=experiment.greedy_soup.top_k if experiment.greedy_soup else 0,
        beside=lambda: {FEDERATION: federation.kept()} if federation else {},
    )


def fit(trainer: pl.Trainer, experiment: Experiment, resumed: Path | None) -> None:
    """Train, from the checkpoint to resume where there is one."""
    if resumed is not None:
        check_same_network(resumed, experiment)
    with server_data(trainer, experiment):
        trainer.fit(experiment.module, experiment.data, ckpt_path=resumed, weights_only=True)


@contextmanager
def server_data(trainer: pl.Trainer, experiment: Experiment) -> Iterator[None]:
    """In the block, what a server trains on that draws features itself, in the place of the clients' samples."""
    data, module = experiment.data, experiment.module
    federation, domains = data.federation, data.domains
    drawn = next((one for one in cast(Any, trainer).callbacks if isinstance(one, DrawnFeatures)), None)
    if federation is None or drawn is None:
        yield
        return
    module.backbone.to(first_device(experiment.config["trainer"]))
    drawn.drawn, classes = drawn_by_server(federation, module.backbone, data, experiment.cache)
    data.federation = None
    in_place_of_samples(data, drawn.drawn, classes)
    try:
        yield
    finally:
        data.domains, data.federation = domains, federation


def check_same_network(resumed: Path, experiment: Experiment) -> None:
    """GraftError where a checkpoint is of another network, or was trained with another average."""
    content, module = checkpoints.load(resumed), experiment.module
    if "averaging" in content and (began := averaging_word(content["config"])) != averaging_word(experiment.config):
        raise GraftError(
            f"resume={resumed}: it was trained with averaging={began} and goes on with that only, not with "
            f"averaging={averaging_word(experiment.config)}. To start from the average: backbone.weights={resumed}"
        )
    stored, present = content["state_dict"], module.state_dict()
    shape = checkpoints.shape
    different = [name for name in {**stored, **present} if shape(stored, name) != shape(present, name)]
    if different:
        raise GraftError(
            f"resume={resumed}: it is of another network; {len(different)} tensors differ, {different[0]} first. "
            "Resume with the configuration it was trained with, or start from its weights: "
            f"backbone.weights={resumed}"
        )


def averaging_word(config: Mapping[str, Any]) -> str:
    """How a run averages weights, as the word of its config."""
    name = config["averaging"].get("_target_", "none").split(".")[-1]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
