"""Which assembled jobs make a stack: the same network on the same features, in streams that draw the same samples."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from graft.experiment import Experiment
from graft.objectives.base import Objective
from graft.stacked import heads
from graft.training.fitting import measures_domain_distance
from graft.training.trainer import device_type

Key = TypeVar("Key")


@dataclass(frozen=True)
class Stack:
    """Jobs that train together: S streams, each of R jobs that draw the same training samples in the same order."""

    streams: Sequence[Sequence[Experiment]]

    @property
    def jobs(self) -> list[Experiment]:
        """All of them, stream by stream."""
        return [job for stream in self.streams for job in stream]


def why_alone(job: Experiment) -> str | None:
    """Why an assembled job trains alone; None where it can train together with others."""
    config, module, data, rule = job.config, job.module, job.data, job.rule
    phases = module.phases(job.epochs)
    if device_type(config["trainer"]["accelerator"]) != "cpu":
        return "it trains on a GPU"
    if config["trainer"]["precision"] not in ("32-true", "64-true", "32", "64"):
        return f"trainer.precision={config['trainer']['precision']}"
    if len(phases) > 1 or module.backbone_trains(job.epochs) or not (phases[0].heads and phases[0].classifiers):
        return "more trains than the head"
    if not module.can_cut or module.batch_transforms or module.terms:
        return "a step needs more than features"
    if type(module.objective).__call__ is not Objective.__call__:
        return "an objective that is no weighted sum"
    if any(task.rejects for task in module.tasks.values()):
        return "a task that chooses a threshold"
    if measures_domain_distance(job):
        return "report.proxy_a_distance reads features in validation"
    if rule.has_score or rule.holds_out:
        return f"selection={rule.name}"
    splits = [data.domains[domain].train for domain in data.train_domains]
    if any(split.labels is None or split.partly_labelled for split in splits):
        return "training samples without labels"
    if not all(len(data.domains[domain].val) for domain in data.eval_domains):
        return "no validation samples"
    return heads.why_alone(module.heads)


def share_backbone(job: Experiment, leader: Experiment) -> bool:
    """Let a job use the leader's backbone where its own is equal, tensor by tensor; whether it is."""
    own, other = job.module.backbone, leader.module.backbone
    if own is other:
        return True
    mine, theirs = own.state_dict(), other.state_dict()
    if repr(own) != repr(other) or mine.keys() != theirs.keys():
        return False
    if not all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items()):
        return False
    job.module.backbone = other
    return True


def stacks_of(jobs: Sequence[Experiment]) -> list[Stack]:
    """Stacks of jobs with one backbone, as few as there can be."""
    return [
        Stack(of_one_length(grouped((stream_of(job), job) for job in alike)))
        for alike in grouped((shape_of(job), job) for job in jobs)
    ]


def of_one_length(streams: Sequence[Sequence[Key]]) -> list[Sequence[Key]]:
    """The streams, cut into parts as long as each other: a sweep of which some jobs are done has longer and shorter."""
    length = math.gcd(*map(len, streams))
    return [stream[first : first + length] for stream in streams for first in range(0, len(stream), length)]


def shape_of(job: Experiment) -> str:
    """Equal for jobs whose tensors have one shape, and which validate on the same samples with the same loss."""
    data, module = job.data, job.module
    return json.dumps(
        [
            repr(module.heads),
            sorted(module.trained_heads()),
            {domain: task.state_dict() for domain, task in module.tasks.items()},
            [domain for domain, weights in module.class_weights.items() if weights is not None],
            [(domain, len(data.domains[domain].train), data.batch_sizes[domain]) for domain in data.train_domains],
            [(domain, data.domains[domain].val.fingerprint) for domain in data.eval_domains],
            data.steps_per_epoch,
            type(module.objective).__name__,
        ]
    )


def stream_of(job: Experiment) -> tuple[object, ...]:
    """Equal for jobs that draw the same training samples in the same order."""
    data = job.data
    return data.seed, tuple(data.domains[domain].train.fingerprint for domain in data.train_domains)


def grouped(pairs: Iterable[tuple[object, Key]]) -> list[list[Key]]:
    """The second ones of the pairs, those with one first one together."""
    groups: dict[object, list[Key]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return list(groups.values())
