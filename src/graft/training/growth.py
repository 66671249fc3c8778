"""A head that has grown by new classes (`head.grow`): what becomes of each class, the old and the new ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graft.backbones.split_backbone import eval_mode
from graft.data.module import TransferDataModule
from graft.heads.base import seen_by
from graft.module import TransferModule

PREFIX = "test/grown/"  # of metrics


@dataclass
class Growth:
    """The old classes of a run whose head has grown and, once it is known, how well it told them apart before."""

    run: str
    old: tuple[str, ...]  # the first of the classes
    before: Tensor | None = None  # (K, 2) right and all test samples of every class, by the network that there was

    def measure(self, module: TransferModule, data: TransferDataModule, device: torch.device) -> None:
        """Count what the old network, which `module` begins as, gets right on the test samples of old classes."""
        counts = torch.zeros(len(data.classes("target") or ()), 2, dtype=torch.int64)
        backbone, head = module.backbone.to(device), module.backbone.pretrained_head
        assert head is not None  # the old head, where one has grown
        with eval_mode(backbone), torch.inference_mode():
            for domain in data.test_domains:
                for batch in data.plain_batches(domain, "test"):
                    assert batch.labels is not None  # a test split always has them
                    decided = head(seen_by(head, backbone, batch.inputs.to(device))).argmax(dim=1).cpu()
                    counts[:, 0] += batch.labels[decided == batch.labels].bincount(minlength=len(counts))
                    counts[:, 1] += batch.labels.bincount(minlength=len(counts))
        backbone.to("cpu")
        self.before = counts

    def describe(self, classes: Sequence[str], confusions: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any]:
        """For `results.json`: by class the number of test samples, and which share is right before and after.

        `confusions` are matrices `(K, K)` of the test splits, rows are true classes. A share is None without samples,
        and before for a class that is new.
        """
        assert self.before is not None
        matrix = torch.tensor(confusions).sum(dim=0)
        old = len(self.old)
        before = [share(right, total) for right, total in self.before.tolist()[:old]]
        return {
            "run": self.run,
            "classes": list(classes),
            "old": old,
            "samples": [int(total) for total in matrix.sum(dim=1).tolist()],
            "before": [*before, *[None] * (len(classes) - old)],
            "after": [share(r, t) for r, t in zip(matrix.diagonal().tolist(), matrix.sum(dim=1).tolist(), strict=True)],
        }


def share(right: float, total: float) -> float | None:
    """Part of a whole; None where there is no whole."""
    return right / total if total else None


def metrics_of(growth: Mapping[str, Any]) -> dict[str, float]:
    """Means over the old classes, over the new ones, their harmonic mean, and what the old ones have lost.

    Over classes with test samples, each of which counts alike. What has none is not there.
    """
    old = growth["old"]
    found = {
        "old_acc_before": mean(growth["before"][:old]),
        "old_acc": mean(growth["after"][:old]),
        "new_acc": mean(growth["after"][old:]),
    }
    both = found["old_acc"], found["new_acc"]
    found["harmonic_mean"] = 2 * both[0] * both[1] / (sum(both) or 1.0)
    metrics = {PREFIX + name: value for name, value in found.items()}
    metrics["forgetting"] = found["old_acc_before"] - found["old_acc"]
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def mean(shares: Sequence[float | None]) -> float:
    """Mean of those that there are; NaN without one."""
    known = [one for one in shares if one is not None]
    return sum(known) / len(known) if known else math.nan
