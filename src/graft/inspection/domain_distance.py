"""How far apart a network sees two domains: the proxy A-distance (Ben-David et al., Machine Learning 2010)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graft.report.statistics import proxy_a_distance
from graft.selection.candidate import fixed_rows
from graft.selection.logistic import fitted_probabilities

ROWS = 1000  # of a domain at most


@dataclass(frozen=True)
class DomainDistance:
    """How many of the held-out samples, half of each domain, a linear classifier gives the wrong domain."""

    wrong: int
    tested: int

    @property
    def value(self) -> float:
        """2 (1 - 2 error): 2 where the classifier is always right, about 0 where it cannot tell the domains."""
        return proxy_a_distance(self.wrong / self.tested)


def domain_distance(source: Tensor, target: Tensor) -> DomainDistance | None:
    """The distance of features `(N, D)` and `(M, D)`: as many rows of each, every other one held out.

    None where a domain has fewer than two rows, or features are not finite.
    """
    rows = min(len(source), len(target), ROWS) // 2 * 2
    if not rows:
        return None
    features = torch.stack([side[fixed_rows(len(side), rows)] for side in (source, target)]).double().numpy()
    if not np.isfinite(features).all():
        return None
    domains = np.repeat([0, 1], rows // 2)
    fitted, held_out = (features[:, start::2].reshape(rows, -1) for start in (0, 1))
    _, probabilities = fitted_probabilities(fitted, domains, held_out)
    return DomainDistance(int((probabilities.argmax(axis=1) != domains).sum()), rows)
