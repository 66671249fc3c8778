"""How much each channel of a pretrained backbone matters for the target: DELTA's attention (ICLR 2019).

A linear head is fitted on the frozen features of the target's training samples; a channel matters as much as the
head's loss grows when the channel is switched off.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from tqdm import tqdm

from graft.backbones.base import Backbone
from graft.backbones.outputs import channel_dim

TEMPERATURE = 5.0
QUIET = {"disable": None, "leave": False}  # a bar in a terminal only, gone when it is done


def attention_weights(loss_increases: Tensor, standardize: bool = False) -> Tensor:
    """Softmax over channels of the loss increases `(C,)` divided by 5; sums to 1.

    `standardize` first brings them to mean 0 and variance 1, as the authors' code does and the paper does not say.
    """
    if standardize:
        spread = loss_increases.std(correction=0)
        loss_increases = (loss_increases - loss_increases.mean()) / spread.clamp(min=torch.finfo(spread.dtype).tiny)
    return (loss_increases / TEMPERATURE).softmax(dim=0)


class LinearProbe:
    """A logistic regression on features; what is asked of it is the loss."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.head = LogisticRegression(tol=1e-6, max_iter=1000).fit(
            features.double().cpu().numpy(), labels.cpu().numpy()
        )

    def loss(self, features: Tensor, labels: Tensor) -> float:
        """Mean cross entropy of features `(B, D)` with labels `(B,)`."""
        log_probabilities = self.head.predict_log_proba(features.double().cpu().numpy())
        columns = np.searchsorted(self.head.classes_, labels.cpu().numpy())
        return -float(log_probabilities[np.arange(len(columns)), columns].mean())


@torch.no_grad()
def loss_increases(
    backbone: Backbone, modules: Sequence[str], samples: Iterable[tuple[Tensor, Tensor]], per_class: int
) -> list[Tensor]:
    """By how much the loss grows with each channel of each module's output switched off: `(C,)` for every module.

    The head is fitted on all samples, the loss is measured on the first `per_class` of each class. The backbone is in
    eval mode.
    """
    features, labels, inputs, input_labels = [], [], [], []
    measured: Counter[int] = Counter()
    for x, y in samples:
        features.append(backbone(x))
        labels.append(y)
        for sample, label in zip(x, y, strict=True):
            if measured[int(label)] < per_class:
                measured[int(label)] += 1
                inputs.append(sample)
                input_labels.append(label)
    probe = LinearProbe(torch.cat(features), torch.cat(labels))
    x, y = torch.stack(inputs), torch.stack(input_labels)

    ran = outputs_in_order(backbone, x)
    names = [name for name, _ in ran]
    unchanged = probe.loss(backbone(x), y)
    increases = []
    for module in modules:
        position = names.index(module)
        output = ran[position][1]
        with remembered(backbone, {name: out for name, out in ran[:position] if names.count(name) == 1}):
            losses = [
                probe.loss(without_channel(backbone, module, channel, x), y)
                for channel in tqdm(range(output.shape[channel_dim(output)]), desc=f"attention of {module}", **QUIET)
            ]
        increases.append(torch.tensor(losses, dtype=torch.float64) - unchanged)
    return increases


def without_channel(backbone: Backbone, name: str, channel: int, inputs: Tensor) -> Tensor:
    """Features `(B, D)` with one channel of a module's output set to 0."""

    def switch_off(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output.select(channel_dim(output), channel).zero_()
        return output

    handle = backbone.get_submodule(name).register_forward_hook(switch_off)
    try:
        return backbone(inputs)
    finally:
        handle.remove()


def outputs_in_order(backbone: Backbone, inputs: Tensor) -> list[tuple[str, Tensor]]:
    """Names and outputs of the modules that make up the stages, in the order in which they ended."""
    modules = dict(backbone.named_modules())
    ran: list[tuple[str, Tensor]] = []

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            ran.append((name, output.clone()))  # a ReLU that follows may work in place

    parts = [prefix for stage in backbone.stages for prefix in stage.prefixes if prefix in modules]
    handles = [modules[name].register_forward_hook(partial(keep, name)) for name in parts]
    backbone(inputs)
    for handle in handles:
        handle.remove()
    return ran


@contextmanager
def remembered(backbone: Backbone, outputs: Mapping[str, Tensor]) -> Iterator[None]:
    """Let modules repeat the outputs they gave before, instead of computing them again for every channel."""

    def repeat(output: Tensor) -> Callable[..., Tensor]:
        return lambda *_, **__: output.clone()

    modules = {backbone.get_submodule(name): output for name, output in outputs.items()}
    for module, output in modules.items():
        module.forward = repeat(output)
    try:
        yield
    finally:
        for module in modules:
            del module.forward
