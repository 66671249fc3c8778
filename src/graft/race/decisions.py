"""Who goes on: candidates by what validation says of them, as many as a rung has places for and the budget pays."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graft.race.space import Candidate, Rung


@dataclass(frozen=True)
class Outcome:
    """What one job found, and what it took; without a `value` it failed, and `failure` says why."""

    folder: str
    value: float | None = None  # of the metric that its selection rule followed, on validation
    metric: str = ""
    higher_is_better: bool = True
    samples: int = 0  # of validation
    cpu_s: float = 0.0
    train_share: float = 1.0  # of its time, for training batches
    validation_share: float = 0.0  # of its time
    once_share: float = 0.0  # of its time, for pretraining that other jobs share
    epochs: int = 1
    validate_every: int = 1  # epochs
    checkpoint: str = ""  # the last one, where it was kept
    can_go_on: bool = False  # whether longer training may begin there
    failure: str = ""

    @property
    def other_share(self) -> float:
        """Of its time, what every job takes however long it trains."""
        return max(1 - self.train_share - self.validation_share - self.once_share, 0)

    def predicted_s(self, epochs: int, *, begun: bool = False) -> float:
        """CPU seconds of the same job with so many epochs; `begun` says that those done are not done again."""
        left = max(epochs - self.epochs, 0) if begun else epochs
        train = self.train_share * left / self.epochs
        validation = self.validation_share * self.validations(left) / self.validations(self.epochs)
        return self.cpu_s * (self.other_share + train + validation)

    def validations(self, epochs: int) -> int:
        """How many so many epochs have; fewer than lie between two of them have one, at their end."""
        return max(epochs // self.validate_every, 1)


@dataclass(frozen=True)
class Measured:
    """What a candidate's jobs of a rung, one a seed, say of it."""

    candidate: Candidate
    outcomes: Sequence[Outcome]

    @property
    def failure(self) -> str:
        """Why a job of it has no value; empty where all have one."""
        return next((one.failure or "no validation score" for one in self.outcomes if one.value is None), "")

    @property
    def value(self) -> float | None:
        """Mean over seeds; None where one of them failed: the lucky ones do not stand for it."""
        values = [one.value for one in self.outcomes if one.value is not None]
        return statistics.fmean(values) if len(values) == len(self.outcomes) else None

    @property
    def rank(self) -> float:
        """The value so that more is better; what failed is last."""
        if self.value is None or math.isnan(self.value):
            return -math.inf
        return self.value if self.outcomes[0].higher_is_better else -self.value

    @property
    def error(self) -> float | None:
        """Standard error of the value: of an accuracy over validation samples, and over seeds where there are several.

        None where neither is known. All candidates see the same samples: a difference is surer than its two ends.
        """
        variances = []
        if self.value is None:
            return None
        first = self.outcomes[0]
        if first.metric.rsplit("/", 1)[-1] == "acc" and first.samples:
            variances.append(self.value * (1 - self.value) / first.samples)
        if len(self.outcomes) > 1:
            values = [one.value for one in self.outcomes if one.value is not None]
            variances.append(statistics.variance(values) / len(values))
        return math.sqrt(sum(variances)) if variances else None

    @property
    def cpu_s(self) -> float:
        """CPU seconds of its jobs."""
        return sum(one.cpu_s for one in self.outcomes)


@dataclass(frozen=True)
class Decision:
    """Who goes on, the best first, who does not, and why not more of them."""

    went_on: list[Measured]
    dropped: list[Measured]
    why: str


def decide(rung: Rung, measured: Sequence[Measured], costs: Mapping[Candidate, float], share_s: float) -> Decision:
    """Who of a rung's candidates goes on: the best, as many as it has places for and `share_s` CPU seconds pay.

    `costs` are predictions of what each takes in the next rung; the best one goes on whatever it takes, and the last
    one where half of it is paid for. Whoever is behind one that is too dear does not: a cheap one is no better for it.
    """
    working = [one for one in measured if one.value is not None]
    groups: dict[tuple[str, ...], list[Measured]] = {}
    for one in sorted(working, key=lambda one: -one.rank):  # stable: of equals the first of the space
        groups.setdefault(one.candidate.group(rung.decides), []).append(one)
    ordered = list(groups.values())  # by the best of each
    places = rung.places(len(ordered))
    kept: list[list[Measured]] = []
    spent = 0.0
    for group in ordered[:places]:
        price = sum(costs[one.candidate] for one in group)
        if kept and spent + price / 2 > share_s:
            break
        kept.append(group)
        spent += price
    why = f"{places} of {len(ordered)} go on"
    if len(kept) < places:
        why = f"{len(kept)} of {len(ordered)} go on, not {places}: the budget pays for no more"
    if rung.also and (forced := first_with(rung.also, ordered)) and forced not in kept:
        kept.append(forced)
        why += f"; with the best of {' '.join('='.join(one) for one in rung.also.items())}"
    went_on = [one for group in kept for one in group]
    dropped = sorted((one for one in measured if one not in went_on), key=lambda one: -one.rank)
    return Decision(went_on, dropped, why)


def first_with(overrides: Mapping[str, str], ordered: Sequence[list[Measured]]) -> list[Measured] | None:
    """The best group of which every candidate has these overrides; None without any."""
    wanted = {*overrides.items()}
    return next((one for one in ordered if all(wanted <= {*each.candidate.overrides.items()} for each in one)), None)


def close_calls(decision: Decision) -> int:
    """How many were dropped although the best is better by less than one standard error."""
    best = max(decision.went_on, key=lambda one: one.rank)
    error = best.error or 0.0
    return sum(one.value is not None and best.rank - one.rank < error for one in decision.dropped)
