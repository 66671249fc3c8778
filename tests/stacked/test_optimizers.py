"""Steps with a rate a job are those of torch's own optimizers, job by job."""

import math

import pytest
import torch

from graft.stacked.optimizers import build

STREAMS, JOBS, STEPS = 2, 3, 7


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("SGD", {"momentum": 0.9, "dampening": 0.5}),
        ("Adam", {"betas": (0.8, 0.99), "eps": 1e-5}),
        ("AdamW", {}),
    ],
)
@pytest.mark.parametrize("cycles", [False, True])
def test_every_job_steps_as_alone(name, options, cycles):
    random = torch.Generator().manual_seed(0)
    start = torch.randn(STREAMS, JOBS, 4, 5, generator=random, dtype=torch.float64)
    gradients = torch.randn(STEPS, STREAMS, JOBS, 4, 5, generator=random, dtype=torch.float64)
    rates = torch.rand(STEPS, STREAMS, JOBS, generator=random, dtype=torch.float64)
    decays = torch.rand(STREAMS, JOBS, generator=random, dtype=torch.float64)
    momenta = 0.8 + 0.1 * torch.rand(STEPS, STREAMS, JOBS, generator=random, dtype=torch.float64)
    momenta[:, 0, 0] = math.nan  # this one's schedule does not cycle it
    stacked = start.clone()
    optimizer = build(f"torch.optim.{name}", [stacked], options)
    for step in range(STEPS):
        optimizer.step([gradients[step]], [rates[step]], [decays], momenta[step] if cycles else None)
    for stream in range(STREAMS):
        for job in range(JOBS):
            alone = start[stream, job].clone().requires_grad_()
            more = {"lr": 1.0, "weight_decay": float(decays[stream, job]), "foreach": False}
            own = getattr(torch.optim, name)([alone], **options, **more)
            for step in range(STEPS):
                (group,) = own.param_groups
                group["lr"] = float(rates[step, stream, job])
                if cycles and not momenta[step, stream, job].isnan():
                    momentum = float(momenta[step, stream, job])
                    group.update(
                        {"betas": (momentum, group["betas"][1])} if "betas" in group else {"momentum": momentum}
                    )
                alone.grad = gradients[step, stream, job].clone()
                own.step()
            torch.testing.assert_close(stacked[stream, job], alone.detach(), rtol=1e-12, atol=1e-12)
