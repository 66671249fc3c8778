"""What a federation reached: every client's score on its own test samples, how even they are, and what was sent."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import torch

from graft.experiment import Experiment
from graft.federated.clients import NOBODY
from graft.federated.federation import Federation
from graft.federated.messages import put, size_of, taken
from graft.model.save import gathered, in_order
from graft.selection.candidate import Candidate
from graft.tasks.base import Task

LOWEST = 0.1  # share of the clients that the worst decile is


def finish(experiment: Experiment, trainer: Any, results: dict[str, Any]) -> None:
    """Put down in the results what the federation reached, after the test, and let the module hold the kept model."""
    federation = experiment.data.federation
    if federation is None:
        return
    task = experiment.module.tasks["target"]
    results["labels"]["training"] = sum(federation.sizes)
    if not federation.validates:
        results["labels"]["choosing"] = 0  # the server's chose
    scores = scores_by_client(experiment, federation, task)
    results["federated"] = {
        "method": federation.method.name,
        "partition": federation.method.partition,
        "metric": task.main_metric,
        "clients": [
            of_client(experiment, federation, client, scores.get(client)) for client in range(len(federation.clients))
        ],
        "bytes": bytes_of(experiment, federation),
        "rounds": federation.history,
    }
    fairness = spread(list(scores.values()), task.higher_is_better)
    if federation.method.keeps_parts:
        everywhere = scores_everywhere(experiment, trainer, federation, task)
        fairness["everywhere"] = sum(everywhere) / len(everywhere)
    results["federated"]["fairness"] = fairness
    results["metrics"] |= {f"test/clients/{task.main_metric}_{name}": value for name, value in fairness.items()}
    results["federated"]["model"] = keep_one(experiment, federation)


def scores_by_client(experiment: Experiment, federation: Federation, task: Task) -> dict[int, float]:
    """The main metric of each client that has test samples, from the predictions of the last test."""
    module, data = experiment.module, experiment.data
    indices, predictions = in_order(gathered(module.test_predictions["target"]))
    labels, owners = data.domains["target"].test.labels, federation.clients.owners["test"][indices]
    found = {}
    for client in owners.unique().tolist():
        own = owners == client
        if client != NOBODY:
            computed = task.metrics(data.num_outputs("target", task))
            computed.update(predictions[own], task.targets(labels[indices[own]]), scores=predictions[own])
            value = float(computed.compute()[task.main_metric])
            if math.isfinite(value):
                found[client] = value
    return found


def spread(scores: Sequence[float], higher_is_better: bool) -> dict[str, float]:
    """Mean over clients that count alike, standard deviation, the worst client, and the mean of the worst tenth."""
    if not scores:
        return {}
    ordered = sorted(scores, reverse=not higher_is_better)
    mean = sum(ordered) / len(ordered)
    lowest = ordered[: max(1, math.ceil(LOWEST * len(ordered)))]
    deviation = math.sqrt(sum((one - mean) ** 2 for one in ordered) / len(ordered))
    return {"mean": mean, "std": deviation, "worst": ordered[0], "worst_decile": sum(lowest) / len(lowest)}


def of_client(experiment: Experiment, federation: Federation, client: int, score: float | None) -> dict[str, Any]:
    """A client's samples, its classes, its score, and how often it failed."""
    target = experiment.data.domains["target"]
    labels = target.train.labels
    counts = None
    share = federation.clients.train[client]
    if len(share) and target.classes is not None and getattr(labels, "ndim", 0) == 1:
        counts = labels[share].bincount(minlength=len(target.classes)).tolist()
    return {
        "name": federation.name(client),
        "train": federation.sizes[client],
        "val": len(federation.clients.share("val", client)),
        "test": len(federation.clients.share("test", client)),
        "classes": counts,
        "score": score,
        "dropped": Counter(one for row in federation.history for one in row["dropped"])[client],
        "rejected": Counter(one for row in federation.history for one in row["rejected"])[client],
    }


def bytes_of(experiment: Experiment, federation: Federation) -> dict[str, int]:
    """Bytes of all rounds, and those by which every client gets the whole network once, before the first."""
    module = experiment.module
    network = [*module.backbone.state_dict().values(), *module.heads.state_dict().values()]
    return {
        "network": size_of(network) * len(federation.clients) if federation.method.has_server else 0,
        "down": sum(row["bytes_down"] for row in federation.history),
        "up": sum(row["bytes_up"] for row in federation.history),
    }


def scores_everywhere(experiment: Experiment, trainer: Any, federation: Federation, task: Task) -> list[float]:
    """The main metric of each client's own network on all test samples, which other clients have too."""
    module, data = experiment.module, experiment.data
    candidate, labels = Candidate(module, trainer), data.domains["target"].test.labels
    server = taken(module, dict.fromkeys(name for message in federation.personal.values() for name in message))
    found = []
    module.eval()
    for client in sorted(federation.personal):
        put(module, {**server, **federation.personal[client]})
        computed = task.metrics(data.num_outputs("target", task))
        for batch in data.batches_of("target", "test", torch.arange(len(labels))):
            logits = candidate.outputs("target", batch)[1].cpu()
            computed.update(*compared(task, logits, labels[cast(torch.Tensor, batch.indices)]))
        found.append(float(computed.compute()[task.main_metric]))
    put(module, server)
    return found


def compared(task: Task, logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions and targets as metrics take them."""
    return task.compared(logits, labels)[:2]


def keep_one(experiment: Experiment, federation: Federation) -> str:
    """Put the weights into the module that are kept as the run's model, and say whose they are."""
    if not federation.personal:
        return "the server's"
    if federation.method.has_server:
        put(experiment.module, federation.mean_of_personal())
        return "the server's, with the mean of the clients' own parts: no client predicts with it"
    client = max(federation.personal, key=lambda one: federation.sizes[one])
    put(experiment.module, federation.personal[client])
    return f"that of client {federation.name(client)}, which has most samples: there is no common one"
