"""Averages of the weights over training, which take the trained weights' place in validation, selection and test."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Annotated, Any, TypedDict

import pytorch_lightning as pl
import torch
from annotated_types import Ge
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from graft.config.types import FractionBelowOne, Positive
from graft.errors import GraftError
from graft.inputs.base import Batch
from graft.module import TransferModule
from graft.terms.base import trained_domains
from graft.training.lightning import data_of, epochs_of
from graft.training.normalization import batchnorms
from graft.training.schedules import AveragingWindow

Tensors = tuple[Tensor, ...] | list[Tensor]


def network(module: TransferModule) -> nn.ModuleDict:
    """Backbone and heads, which is what is tested, under the names that they have in the module's state dict."""
    return nn.ModuleDict({"backbone": module.backbone, "heads": module.heads})


class NoAveraging(TypedDict):
    """The keys of `averaging=none`."""


class Averaging(Callback):
    """Keeps an average of backbone and heads beside the weights that train.

    For a validation the average moves into the module and stays there until training goes on, and after the fit it
    stays for good: a checkpoint of the weights alone holds what was validated. A checkpoint to resume from has the
    average as its weights and the training weights beside it. It has to stand before callbacks that save after a batch.

    Lightning's own WeightAveraging does not reach checkpoints of the weights alone, copies the terms too, and its EMA
    rounds weights that are frozen.
    """

    def __init__(self) -> None:
        self._average: AveragedModel | None = None  # only while a fit runs
        self._swapped = False  # the average is in the module, and the training weights are in `_average`
        self._step = 0
        self._restored: dict[str, Any] | None = None

    def average_of(self, weights: nn.Module) -> AveragedModel:
        """A new average over the states of a network."""
        raise NotImplementedError

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the weights enter the average after the optimizer step that was just taken."""
        raise NotImplementedError

    def window(self, epochs: int) -> AveragingWindow | None:
        """The last epochs of a run, where they are to have a learning rate of their own."""
        return None

    @property
    def started(self) -> bool:
        """Whether the average holds anything yet."""
        return self._average is not None and int(self._average.n_averaged) > 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the average, or go on with a checkpoint's."""
        assert isinstance(pl_module, TransferModule)
        self._network = network(pl_module)
        self._average = self.average_of(self._network)
        self._swapped = False
        self._step = trainer.global_step
        if self._restored is not None:
            self._average.module.load_state_dict(self._restored["training"])
            self._average.n_averaged.fill_(self._restored["averaged"])
            self._swapped = True
            self._restored = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Train the training weights."""
        if self._swapped:
            self._swap()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Take the weights into the average; a batch that only accumulates gradients changes none."""
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            if self.is_due(trainer):
                assert self._average is not None
                self._average.update_parameters(self._network)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        assert isinstance(pl_module, TransferModule)
        if self.started and not self._swapped:
            self.show_average(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the module."""
        assert isinstance(pl_module, TransferModule)
        if self.started and not self._swapped:
            self.show_average(trainer, pl_module)
        self._average = None

    def show_average(self, trainer: pl.Trainer, pl_module: TransferModule) -> None:
        """Put the average into the module."""
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        assert self._average is not None
        for ours, theirs in zip(tensors(self._average.module), tensors(self._network), strict=True):
            kept = ours.clone()
            ours.copy_(theirs)
            theirs.copy_(kept)
        self._swapped = not self._swapped

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """The average as the checkpoint's weights, the training weights beside it."""
        if self._average is None or not self.started:
            return
        ours = dict(self._average.module.state_dict())
        theirs = {name: checkpoint["state_dict"][name] for name in ours}
        average, training = (theirs, ours) if self._swapped else (ours, theirs)
        checkpoint["state_dict"] = checkpoint["state_dict"] | average
        checkpoint["averaging"] = {"training": training, "averaged": int(self._average.n_averaged)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what was saved until training starts; a fit that has nothing left to do keeps the average."""
        self._restored = checkpoint.get("averaging")


class EMA(Averaging):
    """Exponential moving average over optimizer steps, from the weights that training starts from.

    `average = d * average + (1 - d) * weights`, BatchNorm statistics too. After n steps d is
    `min(decay, (1 + n) / (10 + n))`, so that an average over a short run is not one of its beginning (as in
    TensorFlow's). It goes on over a strategy's phases: what is frozen stays as it is, and follows once it trains.
    """

    def __init__(self, decay: FractionBelowOne = 0.999) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise GraftError(f"averaging.decay={decay} is out of range: it must be at least 0 and below 1.")
        self.decay = decay

    def average_of(self, weights: nn.Module) -> AveragedModel:
        """The weights as they are, as the first of the average."""
        average = AveragedModel(weights, multi_avg_fn=self._move, use_buffers=True)
        average.n_averaged.fill_(1)
        return average

    def is_due(self, trainer: pl.Trainer) -> bool:
        """After every step."""
        return True

    def decay_after(self, steps: int) -> float:
        """Decay of the step after a number of steps."""
        return min(self.decay, (1 + steps) / (10 + steps))

    def _move(self, average: Tensors, weights: Tensors, count: Tensor | int) -> None:
        if average[0].is_floating_point():
            get_ema_multi_avg_fn(self.decay_after(int(count) - 1))(average, weights, count)
        else:  # counters have no average
            for ours, theirs in zip(average, weights, strict=True):
                ours.copy_(theirs)


class SWA(Averaging):
    """Stochastic weight averaging (Izmailov et al., UAI 2018): equal weights at the ends of a run's last epochs.

    It averages the epochs after `start_fraction` of all, in which the learning rate stays at `lr_fraction` of the full
    one (None: the schedule goes on). Statistics of BatchNorm layers that train are computed again for the average, in a
    pass over the training batches before each validation.
    """

    def __init__(self, start_fraction: FractionBelowOne = 0.75, lr_fraction: Positive | None = 0.5) -> None:
        super().__init__()
        if not 0 <= start_fraction < 1:
            raise GraftError(
                f"averaging.start_fraction={start_fraction} must be a fraction of training, at least 0 and below 1."
            )
        self.start_fraction = start_fraction
        self.lr_fraction = lr_fraction

    def average_of(self, weights: nn.Module) -> AveragedModel:
        """Empty: equal weights for all that follow."""
        return AveragedModel(weights)

    def is_due(self, trainer: pl.Trainer) -> bool:
        """At an epoch's end, before its validation."""
        return trainer.is_last_batch and trainer.current_epoch >= self.first_epoch(epochs_of(trainer))

    def first_epoch(self, epochs: int) -> int:
        """The first epoch (from 0) that is averaged."""
        return min(round(self.start_fraction * epochs), epochs - 1)

    def window(self, epochs: int) -> AveragingWindow:
        """The epochs that are averaged."""
        return AveragingWindow(self.first_epoch(epochs), self.lr_fraction)

    def show_average(self, trainer: pl.Trainer, pl_module: TransferModule) -> None:
        """Put the average into the module, with its own BatchNorm statistics."""
        super().show_average(trainer, pl_module)
        with trainer.precision_plugin.forward_context():
            recompute_statistics(pl_module, lambda: training_batches(trainer, int(trainer.num_training_batches)))


class GreedySoup:
    """The greedy soup of a run's best epochs, made after the fit; see graft.weights.greedy_soup."""

    follows_metric = True

    def __init__(self, top_k: Annotated[int, Ge(2)] = 3) -> None:
        self.top_k = top_k


class Restated(Callback):
    """Gives BatchNorm layers that train statistics of the weights that are about to be validated."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Over as many training batches as an epoch has."""
        assert isinstance(pl_module, TransferModule)
        with trainer.precision_plugin.forward_context():
            recompute_statistics(pl_module, lambda: training_batches(trainer, self.batches))


def tensors(module: nn.Module) -> Iterator[Tensor]:
    """Every parameter and buffer, without its place in a graph."""
    return (tensor.detach() for tensor in chain(module.parameters(), module.buffers()))


def training_batches(trainer: pl.Trainer, batches: int) -> Iterator[Batch]:
    """The first of the data module's training batches, on the trainer's device."""
    for batch in islice(data_of(trainer).train_batches(), batches):
        yield trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))


@torch.no_grad()
def recompute_statistics(module: TransferModule, batches: Callable[[], Iterable[Batch]]) -> None:
    """Give every BatchNorm that trains the mean of its statistics over the batches, each domain as `module.bn` says.

    torch.optim.swa_utils.update_bn would change frozen layers too, and knows nothing of domains.
    """
    was_training = module.training
    module.train()
    norms = [norm for norm in batchnorms(network(module)) if norm.training]
    momenta = [norm.momentum for norm in norms]
    torch.manual_seed(module.seed)  # for dropout: the same whenever it is done
    alone = module.bn == "domain_specific"  # each domain has its own statistics, but one counter serves all of them
    domains = trained_domains(module.objective, module.terms)
    for part in [(domain,) for domain in domains] if alone and norms else [None] * bool(norms):
        for norm in norms:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.zero_()
            norm.momentum = None  # the mean over all batches since the counter's 0
        for batch in batches():
            module.embeddings_of(module.domain_features({domain: batch[domain] for domain in part or batch}))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.train(was_training)
