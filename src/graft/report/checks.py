"""What could make a sweep's answer wrong: small checks, each with a code, a severity and its place in the docs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from graft.errors import listed
from graft.report.answer import chosen_arm, count, difference, score
from graft.report.baselines import MAJORITY, baselines_in
from graft.report.figures import validation_curve
from graft.report.study import CHOSEN_TRANSFER, Arm, Study
from graft.runs.record import labels_of, labels_used
from graft.runs.roles import role
from graft.runs.sweeps import MIN_SEEDS, all_failed

DOCS = "docs/evidence.md"
EQUAL = 0.8  # share of the other side's FLOPs from which compute counts as equal
NETWORK = ("strategy", "backbone", "backbone.weights")  # keys that say what of which network trains
WRONG, WARNING, NOTE = "wrong", "warning", "note"  # severities, in the order of the page


@dataclass(frozen=True)
class Finding:
    """What a check has to say."""

    code: str
    severity: str
    sentence: str

    @property
    def docs(self) -> str:
        """Where it is explained."""
        return f"{DOCS}#{self.code}"


class Check:
    """Looks at a study for one thing that could make its answer wrong."""

    code: ClassVar[str]
    severity: ClassVar[str] = WARNING

    def finding(self, study: Study) -> Finding | None:
        """What it has to say, None where nothing is the matter."""
        sentence = self._find(study)
        return Finding(self.code, self.severity, sentence) if sentence else None

    def _find(self, study: Study) -> str | None:
        raise NotImplementedError


class Oracle(Check):
    """Checkpoints were chosen by labels that the target is said not to have."""

    code, severity = "oracle-selection", WRONG

    def _find(self, study: Study) -> str | None:
        if any((results.get("selection") or {}).get("oracle") for results in study.finished):
            return "Checkpoints were chosen with labels of a target that counts as unlabelled: an upper bound only."
        return None


class ChosenOnTest(Check):
    """Nothing but the test score orders the configurations."""

    code, severity = "chosen-on-test", WRONG

    def _find(self, study: Study) -> str | None:
        chosen = [one.get("selection") or {} for one in study.finished]
        unselected = [one for one in chosen if not one.get("monitor") and one.get("rule") != "budget"]
        if unselected and any(len(arm.rows) > 1 for arm in arms(study)):
            return "Some jobs followed no validation metric, so that test scores order the configurations."
        return None


class CopiesInTrain(Check):
    """Test samples are in the training split too."""

    code, severity = "test-copies-in-train", WRONG

    def _find(self, study: Study) -> str | None:
        return noted(study, "are in train too")


class NearDuplicates(Check):
    """Test samples look like training samples."""

    code = "near-duplicates"

    def _find(self, study: Study) -> str | None:
        return noted(study, "near duplicates")


class Incomplete(Check):
    """Jobs diverged, failed or did not finish: an arm's mean is over those that did not."""

    code = "diverged-seeds"

    def _find(self, study: Study) -> str | None:
        diverged = sum(len(row.diverged) for row in study.rows)
        unfinished = sum(row.unfinished for row in study.rows)
        numbers = {"diverged": diverged, "failed": len(all_failed(study.rows))}
        numbers["is unfinished" if unfinished == 1 else "are unfinished"] = unfinished
        found = ", ".join(f"{n} {word}" for word, n in numbers.items() if n)
        return f"Of {len(study.jobs)} jobs {found}; scores and intervals leave them out." if found else None


class FewSeeds(Check):
    """Too few seeds for any interval."""

    code = "one-seed"

    def _find(self, study: Study) -> str | None:
        fewest = min((len(one.differences) for one in study.comparisons), default=None)
        if fewest is None:
            fewest = min((len(arm.best.units) for arm in arms(study)), default=MIN_SEEDS)
        if fewest < MIN_SEEDS:
            unit = next((arm.best.unit for arm in arms(study)), "seed")
            return f"{count(fewest, unit)} cannot tell a difference from chance: run {MIN_SEEDS} at least."
        return None


class ValidationLarger(Check):
    """More labels choose than train."""

    code = "validation-larger-than-training"

    def _find(self, study: Study) -> str | None:
        larger = [results for results in study.finished if 0 < labels_of(results)[0] < labels_of(results)[1]]
        if not larger:
            return None
        training, choosing = labels_of(larger[0])
        return (
            f"{training:,} labels train and {choosing:,} choose: labels used are {labels_used(larger[0])}, which "
            "somebody with so few would not have. Choose by selection=budget."
        )


class GridEdge(Check):
    """The best value of a tuned number is the smallest or largest that was tried."""

    code = "best-at-the-edge"

    def _find(self, study: Study) -> str | None:
        edges = []
        for arm in arms(study):
            for key in tuned(study):
                values = {number for row in arm.rows if (number := as_number(row.overrides.get(key))) is not None}
                best = as_number(arm.best.overrides.get(key))
                if len(values) > 1 and best in (min(values), max(values)):
                    edges.append(f"{arm.name} {key}={best:g} ({'lowest' if best == min(values) else 'highest'})")
        if not edges:
            return None
        return f"The best value is at the edge of what was tried: {listed(edges, separator='; ')}. Widen the grid."


class UnequalTries(Check):
    """Training from scratch was tried with fewer configurations, or at one rate that it did not choose."""

    code = "baseline-without-its-own-rate"

    def _find(self, study: Study) -> str | None:
        for setting in study.settings:
            if setting.reference is None or not setting.transfers:
                continue
            most = max(len(arm.rows) for arm in setting.transfers if arm.name != CHOSEN_TRANSFER)
            if len(setting.reference.rows) < most:
                tried = count(len(setting.reference.rows), "configuration")
                return (
                    f"{setting.reference_name.capitalize()} was tried with {tried} and a transfer strategy with "
                    f"{most}: equal numbers are a fair comparison."
                )
            rate_varies = any(key.startswith(("optimizer", "rates")) for key in study.varied)
            if not rate_varies and not any("lr" in (one.get("tuning") or {}) for one in study.finished):
                what = f"{setting.reference_name.capitalize()} and transfer"
                return f"{what} share one learning rate, which suits one of them: vary optimizer.lr."
        return None


class LessCompute(Check):
    """Every training from scratch took fewer FLOPs than the best transfer with its pretraining."""

    code = "baseline-with-less-compute"

    def _find(self, study: Study) -> str | None:
        for setting in study.settings:
            most = max((total(arm) or 0.0 for arm in setting.arms if arm.from_scratch), default=None)
            taken = total(chosen_arm(setting))
            if most and taken and most < EQUAL * taken:
                return (
                    f"{chosen_arm(setting).name} took {taken:.2g} FLOPs, pretraining included, and no training from "
                    f"scratch more than {most:.2g}: strategy=scratch_matched, or compare=transfer, adds equal FLOPs."
                )
        return None


class StillImproving(Check):
    """The last epoch was the best one, so that more training may change the order."""

    code = "still-improving"

    def _find(self, study: Study) -> str | None:
        found = [arm.name for arm in arms(study) if mostly_last(arm.best.finished) and validated_often(study, arm)]
        return f"Best at the last epoch in most jobs: {listed(found)}. Train longer." if found else None


class AbsentClass(Check):
    """A class has no test sample."""

    code = "absent-class"

    def _find(self, study: Study) -> str | None:
        for results in study.finished:
            confusion = (results.get("confusion") or {}).get("test/target")
            if not confusion:
                continue
            rows = zip(confusion["classes"], confusion["matrix"], strict=True)
            if absent := [str(name) for name, row in rows if not sum(row)]:
                return f"No test sample has the class {listed(absent)}: scores say nothing of it."
        return None


class Majority(Check):
    """The best arm is no better than always saying the most frequent class."""

    code = "majority-class"

    def _find(self, study: Study) -> str | None:
        if study.metric != "acc":
            return None
        for arm in arms(study):
            share = majority(arm.best.finished[0])
            mean = arm.best.mean("score", "value")
            if share is not None and mean is not None and mean <= share:
                return (
                    f"{arm.name} reaches {score(study, mean)}, and always saying the most frequent class "
                    f"{score(study, share)}."
                )
        return None


class BaselineAsGood(Check):
    """What anybody would try first does as well."""

    code = "baseline-does-as-well"

    def _find(self, study: Study) -> str | None:
        for setting in study.settings:
            arm = chosen_arm(setting)
            mean = arm.best.mean("score", "value")
            others = [results for other in setting.arms for results in other.best.finished]
            found = baselines_in([*arm.best.finished, *others]) if mean is not None else []
            reach = [one for one in found if one.key != MAJORITY and one.reaches(mean or 0.0, study.higher_is_better)]
            if reach:
                texts = [f"{one.title} {score(study, one.test)} ({one.fitted_on})" for one in reach]
                text = listed(texts, separator="; ")
                return f"Baselines do as well as {arm.name} with {score(study, mean or 0.0)}: {text}."
        return None


class WeakScratch(Check):
    """A baseline that was never shown the source does better than training from scratch."""

    code = "baseline-beats-scratch"

    def _find(self, study: Study) -> str | None:
        for setting in study.settings:
            scratch = setting.reference
            mean = scratch.best.mean("score", "value") if scratch and scratch.from_scratch else None
            if scratch is None or mean is None or not setting.transfers:
                continue
            results = [one for arm in setting.arms for one in arm.best.finished]
            found = [one for one in baselines_in(results) if one.key != MAJORITY and one.saw_target_alone]
            if found and found[0].reaches(mean, study.higher_is_better) and found[0].test != mean:
                return (
                    f"{found[0].sentence_start} ({found[0].fitted_on}) reads {score(study, found[0].test)}, more than "
                    f"{scratch.name} with {score(study, mean)}: what transfer gains over it is less than over scratch."
                )
        return None


class PriorMismatch(Check):
    """Estimated class shares of the target are not those of the source."""

    code, severity = "prior-mismatch", NOTE

    def _find(self, study: Study) -> str | None:
        for results in study.finished:
            for entry in (results.get("baselines") or {}).values():
                if note := entry.get("note"):
                    return f"{entry['title']}: {note}."
        return None


class NegativeTransfer(Check):
    """A transfer strategy is worse than training from scratch."""

    code = "negative-transfer"

    def _find(self, study: Study) -> str | None:
        worse: dict[str, list[str]] = {}
        for setting in study.settings:
            for one in setting.comparisons:
                if one.verdict == "hurts":
                    found = f"{one.arm.name} ({difference(study, one.estimate.mean)})"
                    worse.setdefault(setting.reference_name, []).append(found)
        return " ".join(f"Worse than {reference}: {listed(names)}." for reference, names in worse.items()) or None


class BatchNormDiffers(Check):
    """`strategy.train_bn=auto` came to different ends in jobs that are compared for something else."""

    code = "batchnorm-differs"

    def _find(self, study: Study) -> str | None:
        kept: dict[tuple[str, ...], list[bool]] = {}
        for results in study.finished:
            own = sorted(one for one in results.get("overrides") or () if one.split("=")[0] in NETWORK)
            kept.setdefault(tuple(own), []).append("strategy.train_bn" in (results.get("settings") or {}))
        for network, ends in kept.items():
            if any(ends) and not all(ends):
                return (
                    f"BatchNorm stayed as pretrained in {sum(ends)} of {len(ends)} jobs {' '.join(network)}".rstrip()
                    + ", and trained in the others: set strategy.train_bn to null or false for all of them."
                )
        return None


class NoPredictions(Check):
    """The interval holds seeds alone."""

    code, severity = "seeds-alone", NOTE

    def _find(self, study: Study) -> str | None:
        if any(one.crossed is None and one.splits == 1 and len(one.differences) > 1 for one in study.comparisons):
            return (
                "Intervals are over seeds on this test set alone: other test samples would move them further "
                "(save.predictions keeps what is needed, for metrics that are means over samples)."
            )
        return None


CHECKS: tuple[type[Check], ...] = (
    *(Oracle, ChosenOnTest, CopiesInTrain, Incomplete, FewSeeds, NegativeTransfer, BaselineAsGood, WeakScratch),
    *(Majority, PriorMismatch, ValidationLarger, UnequalTries, LessCompute, GridEdge, StillImproving),
    *(NearDuplicates, AbsentClass, BatchNormDiffers, NoPredictions),
)


def findings(study: Study) -> list[Finding]:
    """What all checks say, the most severe first."""
    if not study.finished:
        return []
    found = [finding for check in CHECKS if (finding := check().finding(study))]
    return sorted(found, key=lambda one: (WRONG, WARNING, NOTE).index(one.severity))


def arms(study: Study) -> list[Arm]:
    """Of all settings."""
    return [arm for setting in study.settings for arm in setting.arms]


def tuned(study: Study) -> list[str]:
    """Varied keys that are chosen within an arm."""
    return [key for key in study.varied if role(key) == "tuned"]


def target(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a run's record says of the target's data."""
    return results.get("data", {}).get("target", {})


def noted(study: Study, words: str) -> str | None:
    """A note of the target's data that holds some words."""
    for results in study.finished:
        for note in target(results).get("notes", ()):
            if words in note:
                return f"{note}."
    return None


def as_number(text: str | None) -> float | None:
    """An override's value as a number, None where it is none."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def mostly_last(finished: Sequence[Mapping[str, Any]]) -> bool:
    """Whether most jobs were best at the last of several epochs."""
    ends = [
        (results["selection"]["epoch"], results["phases"][-1]["epochs"][1])
        for results in finished
        if (results.get("selection") or {}).get("epoch") is not None and results.get("phases")
    ]
    return bool(ends) and sum(epoch == last > 0 for epoch, last in ends) > len(ends) / 2


def validated_often(study: Study, arm: Arm) -> bool:
    """Whether an arm's jobs were validated more than once, as is taken of those without a record of it."""
    curves = [validation_curve(job.path, study.metric) for job in arm.jobs.values()]
    return any(curve is None or len(curve) > 1 for curve in curves)


def total(arm: Arm) -> float | None:
    """FLOPs of an arm's best configuration, pretraining included; None where they are not known."""
    return arm.best.mean("cost", "flops", "total")


def majority(results: Mapping[str, Any]) -> float | None:
    """Fraction of the test samples that have the most frequent class."""
    confusion = (results.get("confusion") or {}).get("test/target")
    if not confusion:
        return None
    totals = [sum(row) for row in confusion["matrix"]]
    return max(totals) / sum(totals) if sum(totals) else None
