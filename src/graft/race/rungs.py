"""The story of a race: rung after rung, each longer and with fewer candidates, and the winner at the end."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from graft.errors import GraftError
from graft.race.decisions import Decision, Measured, Outcome, decide
from graft.race.log import RaceLog, result_line
from graft.race.space import Candidate, Rung, Space

EPOCHS = "training.epochs"
# Of every job but the winner's: nothing looks at the test split.
UNTESTED = ("test=false",)
REFIT = (
    "data.refit=true",
    "selection=last",
    "baselines=none",
)  # on all labels, which leaves nothing to choose an epoch by
FEWEST_EPOCHS = 2  # some strategies have two phases
TUNED = ("optimizer.lr", "optimizer.weight_decay")  # axes in which jobs may train together


@dataclass(frozen=True)
class Job:
    """One job of a race: its overrides, and the job whose checkpoint it goes on from, where there is one."""

    overrides: tuple[str, ...]
    begun: Outcome | None = None
    is_whole: bool = False  # as long as the recipe says: its checkpoint is what a test needs


Runner = Callable[[Sequence[Job]], list[Outcome]]  # runs them and says what each found, in their order


@dataclass
class Race:
    """A race and what it knows so far."""

    space: Space
    run: Runner
    log: RaceLog
    epochs: int  # of the recipe
    seeds: Sequence[str | None] = (None,)  # None: the recipe's
    budget_s: float | None = None  # CPU seconds
    budget: float | None = None  # share of the CPU seconds that all candidates would take
    start_s: float = 0.0  # CPU seconds that the command takes before its first job, as a sweep's does
    validate_every: int = 1  # epochs, of the recipe
    say: Callable[[str], None] = print
    full_sweep_s: float | None = None  # what all candidates would take, once it can be told
    _last: dict[Candidate, list[Outcome]] = field(default_factory=dict)  # of whole candidates, the longest so far
    _went_on: int = 0  # jobs of the present rung that began at a checkpoint

    def winner(self) -> Measured:
        """Run the race; what the last rung says of the winner. GraftError where no candidate came to an end."""
        candidates = self.space.candidates()
        rungs = [one for one in self.space.rungs[:-1] if self.has_a_choice(one, candidates)] + [self.space.rungs[-1]]
        for place, rung in enumerate(rungs):
            left = len(rungs) - place - 1
            measured = self.measured(rung, candidates, left)
            if rung.decides and all(one.value is None for one in measured):
                self.say(f"race, {rung.name}: left out. {measured[0].failure if measured else 'The budget is spent'}.")
                continue
            if not any(one.value is not None for one in measured):
                why = next((one.failure for one in measured), "the budget pays for none")
                raise GraftError(
                    f"No candidate of the race came to its end on {rung.name}. The first one: {why}\n"
                    f"The jobs are in {self.log.folder}; `graft show` prints them."
                )
            following = rungs[place + 1] if left else None
            costs = self.costs(following, measured)
            share_s = self.share_s(left)
            decision = decide(rung, measured, costs, share_s) if following else best(measured)
            self.put_down(rung, decision, measured, candidates)
            candidates = [one.candidate for one in decision.went_on]
        return decision.went_on[0]

    def has_a_choice(self, rung: Rung, candidates: Sequence[Candidate]) -> bool:
        """Whether a rung before the last one has anything to drop."""
        groups = {one.group(rung.decides) for one in candidates}
        axes_are_there = all(axis in self.space.axes for axis in rung.decides)
        return axes_are_there and rung.places(len(groups)) < len(groups)

    def measured(self, rung: Rung, candidates: Sequence[Candidate], left: int) -> list[Measured]:
        """What a rung says of the candidates; with a budget in seconds the first rung ends with its part of it.

        Candidates that become one job under what the rung sets share it.
        """
        before = self.log.spent_s
        part = None if self.budget_s is None or self._last else (self.budget_s - self.start_s) / (left + 1)
        found: list[Measured] = []
        self._went_on = 0
        batches = [list(candidates)] if part is None else grouped(candidates)
        for batch in batches:
            if part is not None and found and self.log.spent_s - before >= part:
                break
            jobs = {one: self.jobs_of(rung, one) for one in batch}
            self._went_on += sum(job.begun is not None for of_one in jobs.values() for job in of_one)
            self.finish([job for of_one in jobs.values() for job in of_one])
            found += [Measured(one, [self.outcome(job) for job in of_one]) for one, of_one in jobs.items()]
        if not rung.decides:
            self._last |= {one.candidate: list(one.outcomes) for one in found}
            if self.full_sweep_s is None:
                self.full_sweep_s = self.predicted_sweep_s(found)
        return found

    def jobs_of(self, rung: Rung, candidate: Candidate) -> list[Job]:
        """The jobs of a candidate on a rung, one a seed."""
        own_keys = candidate.overrides_of(rung.decides) if rung.alone else candidate.overrides
        keys = own_keys | dict(rung.set)
        epochs, whole = self.epochs_on(rung, candidate), self.epochs_of(candidate)
        if epochs < whole:
            keys[EPOCHS] = str(epochs)
        jobs = []
        for place, seed in enumerate(self.seeds_on(rung)):
            own = keys if seed is None else keys | {"seed": seed}
            before = [] if rung.decides else self._last.get(candidate, [])
            begun = before[place] if place < len(before) and before[place].can_go_on else None
            overrides = (*(f"{key}={value}" for key, value in own.items()), *UNTESTED)
            jobs.append(Job(overrides, begun, is_whole=epochs == whole))
        return jobs

    def finish(self, jobs: Sequence[Job]) -> None:
        """Run those of the jobs that the log does not know."""
        new = list({job.overrides: job for job in jobs if self.log.outcome(job.overrides) is None}.values())
        if new:
            for job, outcome in zip(new, self.run(new), strict=True):
                self.log.add(job.overrides, outcome)
            self.log.write()

    def outcome(self, job: Job) -> Outcome:
        """What a finished job found."""
        found = self.log.outcome(job.overrides)
        assert found is not None
        return found

    def epochs_of(self, candidate: Candidate) -> int:
        """How long a candidate trains in the end."""
        return int(candidate.overrides.get(EPOCHS, self.epochs))

    def epochs_on(self, rung: Rung, candidate: Candidate) -> int:
        """How long a candidate trains on a rung: to a validation, which shorter runs than lie between two end with."""
        whole = self.epochs_of(candidate)
        epochs = max(round(rung.epochs * whole), FEWEST_EPOCHS)
        if epochs > self.validate_every:
            epochs = math.ceil(epochs / self.validate_every) * self.validate_every
        return min(whole, epochs)

    def seeds_on(self, rung: Rung) -> Sequence[str | None]:
        """The seeds that a rung trains on."""
        return self.seeds[: rung.seeds]

    def costs(self, following: Rung | None, measured: Sequence[Measured]) -> dict[Candidate, float]:
        """Predicted CPU seconds of candidates on the next rung; 0 where only other jobs were seen so far."""
        if following is None:
            return {}
        return {one.candidate: self.predicted_s(following, one.candidate) for one in measured}

    def predicted_s(self, rung: Rung, candidate: Candidate) -> float:
        """CPU seconds of a candidate on a rung, from those of its last one."""
        before = self._last.get(candidate, [])
        if not before:
            return 0.0
        epochs, seeds = self.epochs_on(rung, candidate), self.seeds_on(rung)
        known = [one.predicted_s(epochs, begun=one.can_go_on) for one in before]
        new = [one.predicted_s(epochs) for one in before]
        further = len(seeds) - len(known)
        return sum(known[: len(seeds)]) + max(further, 0) * sum(new) / len(new)

    def predicted_sweep_s(self, measured: Sequence[Measured]) -> float:
        """CPU seconds of every candidate on every seed at full length; of those that were not tried their mean."""
        whole = Rung("whole")
        each = [
            len(self.seeds)
            * sum(outcome.predicted_s(self.epochs_on(whole, one.candidate)) for outcome in one.outcomes)
            / len(one.outcomes)
            for one in measured
            if one.value is not None
        ]
        failed = sum(one.value is None for one in measured)
        return sum(each) / len(each) * (len(self.space.candidates()) - failed) if each else 0.0

    def share_s(self, left: int) -> float:
        """What the next of `left` rungs may spend, all together; a sweep has to start as well."""
        total = self.budget_s
        if self.budget is not None and self.full_sweep_s is not None:
            total = self.budget * (self.start_s + self.full_sweep_s)
        return float("inf") if total is None else (total - self.start_s - self.log.spent_s) / max(left, 1)

    def put_down(
        self, rung: Rung, decision: Decision, measured: Sequence[Measured], candidates: Sequence[Candidate]
    ) -> None:
        """Log a decision and print it."""
        tried = {one.candidate for one in measured}
        epochs = sorted({self.epochs_on(rung, one) for one in tried})
        values = {
            "name": rung.name,
            "epochs": epochs[0] if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}",
            "seeds": len(self.seeds_on(rung)),
            "how": f"{self._went_on} from their checkpoints" if self._went_on else "trained anew",
            "cpu_s": sum({o.folder: o.cpu_s for one in measured for o in one.outcomes}.values()),
        }
        untried = [one.label for one in candidates if one not in tried]
        self.say(self.log.add_rung(values, decision, untried))

    def tested(self, winner: Measured) -> list[Outcome]:
        """Test the winner, from the checkpoints of the last rung where they are there; put down and print the result.

        GraftError where that fails.
        """
        jobs = [
            Job(tuple(one for one in job.overrides if one not in UNTESTED), begun=outcome)
            for job, outcome in zip(self.jobs_of(self.space.rungs[-1], winner.candidate), winner.outcomes, strict=True)
        ]
        self.finish(jobs)
        outcomes = [self.outcome(job) for job in jobs]
        if failure := next((one.failure for one in outcomes if one.value is None), None):
            raise GraftError(f"The race's winner, {winner.candidate.label}, could not be tested: {failure}")
        self.log.result = {
            "candidate": winner.candidate.label,
            "value": winner.value,
            "error": winner.error,
            "candidates": len(self.space.candidates()),
            "jobs": len(self.log.jobs),
            "cpu_s": round(self.log.spent_s, 3),
            "full_sweep_s": self.full_sweep_s and round(self.full_sweep_s, 3),
            "share": self.log.spent_s / self.full_sweep_s if self.full_sweep_s else None,
            "folders": [one.folder for one in outcomes],
        }
        self.log.write()
        self.say(result_line(self.log.result))
        return outcomes

    def refitted(self, winner: Measured) -> list[Outcome]:
        """Train the winner once more, on training and validation labels, and test its last epoch; a job a seed."""
        whole = [[*job.overrides] for job in self.jobs_of(self.space.rungs[-1], winner.candidate)]
        jobs = [Job((*(one for one in overrides if one not in UNTESTED), *REFIT)) for overrides in whole]
        self.finish(jobs)
        return [self.outcome(job) for job in jobs]


def best(measured: Sequence[Measured]) -> Decision:
    """The last decision: the best by validation, of equals the first."""
    ordered = sorted(measured, key=lambda one: -one.rank)
    return Decision(ordered[:1], ordered[1:], "the best by validation wins")


def grouped(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Candidates in batches that differ in tuned numbers alone, in their order."""

    found: dict[tuple[str, ...], list[Candidate]] = {}
    for one in candidates:
        found.setdefault(tuple(option.label for axis, option in one.options if axis not in TUNED), []).append(one)
    return list(found.values())
