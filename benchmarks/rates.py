"""Rates of one core, for docs/scale.md: `python -m benchmarks.rates`. In CPU seconds: the machine need not be idle."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

from graft.data.sampling import TrainBatches

MEASURED_S = 2.5
NETWORKS = (("resnet18", 96, 16), ("resnet50", 224, 4))  # name, pixels, batch


def cpu_seconds(work: Callable[[], object]) -> float:
    """Mean CPU seconds of a call, the first one apart."""
    work()
    began, calls = time.process_time(), 0
    while time.process_time() - began < MEASURED_S:
        work()
        calls += 1
    return (time.process_time() - began) / calls


def images_a_second(name: str, pixels: int, batch: int) -> tuple[float, float]:
    """Of a forward pass, and of a step of SGD on all parameters; float32, channels last, one thread."""
    network = timm.create_model(name, pretrained=False, num_classes=10).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, pixels, pixels).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)

    def forward() -> None:
        with torch.no_grad():
            network(images)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()

    return batch / cpu_seconds(forward), batch / cpu_seconds(step)


def peak_mb() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main() -> None:
    """Print them."""
    torch.set_num_threads(1)
    for network in NETWORKS:
        forward, step = images_a_second(*network)
        print(f"{network[0]}, {network[1]} px: forward {forward:.1f}, step {step:.1f} images a CPU second", flush=True)
    before = peak_mb()
    paths = [Path(f"/data/train/class{number % 1000:03d}/image{number:09d}.jpg") for number in range(300_000)]
    print(f"paths: {1e6 * (peak_mb() - before) / len(paths):.0f} bytes each", flush=True)
    for samples in (10**7, 4 * 10**7):
        before, began = peak_mb(), time.process_time()
        next(iter(TrainBatches(samples, 256, seed=0)))
        took = time.process_time() - began
        print(f"order of {samples:.0e} samples: {took:.2f} s, {1e6 * (peak_mb() - before) / samples:.0f} bytes each")


if __name__ == "__main__":
    main()
