"""Which machine the figures are from: without it a time means nothing."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.commands import ROOT
from graft.packages import versions_of

PACKAGES = (
    *("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "wandb", "timm", "numpy", "pillow"),
    *("accelerate", "transformers", "fastai"),
)


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, packages, GPU, Graft's commit, and how busy the machine was before."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": versions_of(PACKAGES),
        "commit": commit(),
    }


def headline(machine: dict[str, Any]) -> str:
    """The machine in two lines."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GiB, GPU: {machine['gpu'] or 'none'}; "
        f"{machine['system']}, Python {machine['python']}, load before {machine['load_before']}\n{packages}"
    )


def cpu_model() -> str:
    """The processor's name; Linux tells it only in /proc/cpuinfo."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use, which in a container can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str | None:
    """Graft's commit, with a mark where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return outcome.stdout.strip() or None
