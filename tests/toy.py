"""A trainer, a module and batches for tests of what surrounds them: small, silent, on the CPU."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from graft.backbones.base import Backbone
from graft.inputs.base import DomainBatch
from graft.module import TransferModule
from graft.objectives.alpha import AlphaWeighted
from graft.rates.uniform import Uniform
from graft.strategies.full import Full
from graft.tasks.multiclass import Multiclass
from graft.terms.base import TermContext
from graft.training.schedules import Constant


def trainer_on_cpu(callbacks: Iterable[pl.Callback] = (), **options: Any) -> pl.Trainer:
    """A trainer that prints and logs nothing and saves only what a callback among these saves."""
    callbacks = list(callbacks)
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return pl.Trainer(callbacks=callbacks, **defaults | options)


def optimizer(name: str = "SGD", lr: float = 0.1, weight_decay: float = 0.01, **options: Any) -> dict[str, Any]:
    """The config of one of torch's optimizers."""
    return {
        "_target_": f"torch.optim.{name}",
        "lr": lr,
        "weight_decay": weight_decay,
        "decay_norms_and_biases": False,
        "options": options,
    }


def module_of(
    backbone: Backbone,
    heads: Iterable[str] = ("shared",),
    classes: int = 3,
    domains: Iterable[str] = ("target", "source"),
    **settings: Any,
) -> TransferModule:
    """A module that classifies with fresh linear heads and trains everything on the target at one constant rate."""
    domains = list(domains)
    defaults = {
        "objective": AlphaWeighted(0.0),
        "strategy": Full(),
        "rates": Uniform(),
        "schedule": Constant(),
        "optimizer": optimizer(momentum=0.9),
    }
    return TransferModule(
        backbone=backbone,
        heads={name: nn.Linear(backbone.feature_size, classes).to(next(backbone.parameters())) for name in heads},
        tasks={domain: Multiclass() for domain in domains},
        num_outputs=dict.fromkeys(domains, classes),
        **defaults | settings,
    )


def batch_of_tensors(pairs: Mapping[str, tuple[Any, Tensor | None]]) -> dict[str, DomainBatch]:
    """A batch from the inputs and labels of every domain."""
    return {domain: DomainBatch(inputs, labels) for domain, (inputs, labels) in pairs.items()}


def split(whole: DomainBatch, size: int) -> list[DomainBatch]:
    """Batches of a size from one batch, in its order; the last may be smaller."""
    return [DomainBatch(x, y) for x, y in zip(whole.inputs.split(size), whole.labels.split(size), strict=True)]


def loader_of(whole: DomainBatch, size: int) -> DataLoader:
    """A training loader of one domain, whose batches `split` makes."""
    return DataLoader(split(whole, size), batch_size=None)


def term_context(backbone: Backbone) -> TermContext:
    """What a term can ask for that needs the backbone alone."""
    head = nn.Linear(backbone.feature_size, 3)
    return TermContext(backbone, {"shared": head}, head, None, False, 3, tuple, None)
