"""Training on a GPU without Graft: a compiled bare loop, and timm's recipe, both on one batch that stays there.

Data that never move are the strictest comparison: Graft's come from the main memory, as anyone's do.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import networks
from benchmarks.images import load
from benchmarks.turns import Plan, Turn

LOG_EVERY = 50  # steps between two of timm's updates of its meters, its train.py's default


def device() -> torch.device:
    """The GPU; without one the CPU, to try the code out."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepared(plan: Plan, network: nn.Module) -> tuple[nn.Module, Tensor, Tensor, int]:
    """The network ready to train, a synthetic batch `(B, C, H, W)` with labels `(B,)`, and steps an epoch."""
    images, labels = load(plan.images)["train"]
    images = torch.randn(plan.batch_size, *images.shape[1:], device=device()).to(memory_format=torch.channels_last)
    network = network.to(device(), memory_format=torch.channels_last).train()
    return network, images, labels[: plan.batch_size].to(device()), len(labels) // plan.batch_size


def half_precision() -> torch.autocast:
    """bf16 where it is safe."""
    return torch.autocast(device().type, torch.bfloat16)


def fit_compiled(plan: Plan, turn: Turn) -> None:
    """torch.compile, channels last, bf16, SGD with momentum, and nothing else."""
    network, images, labels, steps = prepared(plan, networks.build(plan.network))
    network = torch.compile(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=plan.lr, momentum=0.9, nesterov=True)

    def step(number: int) -> None:
        optimizer.zero_grad()
        with half_precision():
            loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    take_turns(plan, turn, step, steps)


def fit_timm(plan: Plan, turn: Turn) -> None:
    """The training loop of timm's train.py with --amp --amp-dtype bfloat16 --channels-last --torchcompile."""
    from timm import create_model
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.utils import AverageMeter

    network = create_model(plan.network, num_classes=networks.CLASSES[plan.network])
    network, images, labels, steps = prepared(plan, network)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=plan.lr, weight_decay=2e-5, momentum=0.9)
    network = torch.compile(network)
    loss_of = LabelSmoothingCrossEntropy(smoothing=0.1).to(device())
    scheduler = CosineLRScheduler(optimizer, t_initial=plan.epochs * steps, t_in_epochs=False)
    losses, updates = AverageMeter(), 0

    def step(number: int) -> None:
        nonlocal updates
        with half_precision():
            loss = loss_of(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
        scheduler.step_update(num_updates=updates)
        if number % LOG_EVERY == 0 or number == steps - 1:
            losses.update(loss.item(), len(labels))

    take_turns(plan, turn, step, steps)


def take_turns(plan: Plan, turn: Turn, step: Callable[[int], None], steps: int) -> None:
    """Epoch after epoch of so many steps."""
    for _ in range(plan.epochs):
        turn.begin()
        for number in range(steps):
            step(number)
