"""fastai's Learner with its default callbacks: recorder and progress bar."""

import functools

import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from benchmarks import networks
from benchmarks.images import load, normalised
from benchmarks.peers.bare import tensors
from benchmarks.turns import Plan, Turn


def fit(plan: Plan, turn: Turn) -> None:
    """fastai's fit; validation is cancelled, since the bare loop has none."""
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.data.load import DataLoader
    from fastai.learner import Callback, CancelValidException, Learner
    from fastai.optimizer import OptimWrapper

    class Turns(Callback):
        """Takes a turn at the begin of each epoch and validates nothing."""

        def before_epoch(self) -> None:
            turn.begin()

        def before_validate(self) -> None:
            raise CancelValidException

    images, labels = load(plan.images)["val"]
    data = DataLoaders(
        DataLoader(TensorDataset(*tensors(plan)), bs=plan.batch_size, shuffle=True),
        DataLoader(TensorDataset(normalised(images), labels), bs=plan.batch_size),
    )
    learner = Learner(
        data,
        networks.build(plan.network),
        loss_func=F.cross_entropy,
        opt_func=functools.partial(OptimWrapper, opt=torch.optim.SGD),
        lr=plan.lr,
        cbs=[ProgressCallback(), Turns()],
    )
    learner.fit(plan.epochs)
