"""The first line of a report: does transfer help, which way, and how sure is that?"""

import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graft.cli.program import program
from graft.errors import override
from graft.report.baselines import does_as_well
from graft.report.cross_validation import num_tested, pooled
from graft.report.looks import level
from graft.report.statistics import further_seeds
from graft.report.study import Arm, Comparison, Setting, Study
from graft.report.summary import within_bounds
from graft.runs.record import labels_of
from graft.runs.roles import REPEATS, role
from graft.runs.sweeps import MIN_SEEDS, all_chose_by

SMALLEST = 0.01  # the difference that a study should be able to see: 1 point, or 1 % of scratch's score


@dataclass(frozen=True)
class Answer:
    """A verdict (helps, hurts, unclear, missing), the line that says so, and what else a reader has to know."""

    verdict: str
    line: str
    details: list[str]
    baseline: bool = False  # whether a baseline does as well, which the line says first


def answers(study: Study) -> list[Answer]:
    """One for each setting, those of the best transfer by validation."""
    if not study.settings:
        return [Answer("missing", "No answer yet: no job has finished with a score.", [])]
    found = [after_baselines(study, setting, answer(study, setting)) for setting in study.settings]
    if len(found) == 1:
        return found
    names = [setting.name for setting in study.settings]
    if len({tuple(one.details) for one in found}) == 1:  # one command for all, or nothing
        found = [*(replace(one, details=[]) for one in found[:-1]), found[-1]]
    return [replace(one, line=f"{name}: {one.line}") for name, one in zip(names, found, strict=True)]


def after_baselines(study: Study, setting: Setting, found: Answer) -> Answer:
    """The answer, and before it the baseline that does as well as the best transfer, where there is one."""
    arm = chosen_arm(setting)
    others = [results for other in setting.arms for results in other.best.finished]
    better = does_as_well(
        [*arm.best.finished, *others], arm.name, arm.best.mean("score", "value"), lambda value: score(study, value)
    )
    return replace(found, line=f"{better} {found.line}", baseline=True) if better else found


def chosen_arm(setting: Setting) -> Arm:
    """What the answer is about: the best transfer by validation, or the best of all."""
    return setting.comparisons[0].arm if setting.comparisons else (setting.transfers or setting.arms)[0]


def answer(study: Study, setting: Setting) -> Answer:
    """The answer of one setting."""
    if not setting.comparisons and (found := cross_validated(study, setting)):
        return found
    if setting.reference is None:
        what = "run from scratch" if setting.reference_name == "scratch" else "run without a term (source only)"
        return Answer("missing", f"No answer yet: there is no {what} to compare with.", [missing(study, setting)])
    if not setting.transfers:
        what = "starts from scratch" if setting.reference_name == "scratch" else "learns from the source only"
        return Answer("missing", f"No answer yet: every run {what}, so nothing is transferred.", [])
    if not setting.comparisons:
        return Answer(
            "missing", f"No answer yet: no seed has finished both {setting.reference_name} and with transfer.", []
        )
    best = setting.comparisons[0]
    lines = [*details(study, best), *compute(best)]
    if setting.procedure:
        lines.insert(1, procedure_line(study, setting.procedure))
    return Answer(best.verdict, headline(study, setting, best), lines)


def headline(study: Study, setting: Setting, one: Comparison) -> str:
    """A comparison in one line."""
    gain = f"{difference(study, one.estimate.mean)} over {reference_of(setting, one)}"
    what = "Transfer" if setting.reference_name == "scratch" else "Adaptation"
    chosen = choice(one.arm)
    units = units_of(one)
    if one.interval is None:
        if len(one.differences) < MIN_SEEDS:
            return f"{units}: too few to tell. {gain}, {chosen}"
        return f"No spread seen: {gain} in every one of {units}, {chosen}"
    low, high = (shown(study, end) for end in one.interval)
    paired = f"{units}, {'Nadeau-Bengio corrected' if one.splits > 1 else 'paired by seed'}, {chosen}"
    if one.verdict == "helps":
        return f"{what} helps: {gain} [{low}, {high}], {paired}"
    if one.verdict == "hurts":
        return f"{what} hurts: {gain} [{low}, {high}], {paired}"
    if one.splits > 1:  # whose overlap more of them do not remove
        return f"The {one.unit}s do not tell: {gain} [{low}, {high}], {paired}"
    return f"The seeds do not tell: {gain} [{low}, {high}], {paired}; {more_seeds(study, one)}"


def reference_of(setting: Setting, one: Comparison) -> str:
    """What a comparison is with, as text: of scratches with different compute, with which."""
    matched = {is_matched(arm) for arm in setting.arms if arm.from_scratch}
    if len(matched) < 2:
        return setting.reference_name
    return f"scratch with equal {'FLOPs' if is_matched(one.reference) else 'steps'}"


def is_matched(arm: Arm) -> bool:
    """Whether an arm trained for the FLOPs of transfer with its pretraining."""
    return bool(arm.best.finished[0].get("cost", {}).get("matches_flops"))


def units_of(one: Comparison) -> str:
    """How many folds, splits or seeds a comparison is over, and what became of the others."""
    if one.splits > 1:
        return count(len(one.differences), one.unit)
    lost = [f"{arm.name} {arm.best.lost}" for arm in (one.arm, one.reference) if arm.best.lost]
    if not lost:
        return count(len(one.differences), "seed")
    planned = max(len(arm.best.jobs) for arm in (one.arm, one.reference))
    return f"{len(one.differences)} of {count(planned, 'seed')} ({'; '.join(lost)})"


def more_seeds(study: Study, one: Comparison) -> str:
    """How many further seeds would see the smallest difference of interest."""
    about, low, high = further_seeds(one.differences.tolist(), smallest(study, one), one.family)
    unit = "1 point" if study.in_points else f"1 % of scratch's {study.metric}"
    bound = "; on new ones more seeds alone cannot show it" if test_bounds(study, one) else ""
    if about == 0:
        return f"these are enough for 80 % power at {unit} on these test samples{bound}"
    where = f" on these test samples{bound}" if bound else ""
    return f"about {about} more ({low} to {high}) for 80 % power at {unit}{where}"


def test_bounds(study: Study, one: Comparison) -> bool:
    """Whether the test samples alone leave more error than 80 % power at the smallest difference of interest allows."""
    return one.crossed is not None and 2.8 * one.crossed.floor > smallest(study, one)  # 1.96 + .84


def cross_validated(study: Study, setting: Setting) -> Answer | None:
    """The score of the chosen configuration, or of nested cross-validation's choices, where nothing is compared.

    None without folds.
    """
    arm = setting.procedure or chosen_arm(setting)
    if arm.best.unit != "fold":
        return None
    estimate, _ = arm.estimate()
    interval = ""
    if estimate.has_interval:
        low, high = (score(study, end) for end in within_bounds(study.metric, estimate.interval()))
        interval = f" [{low}, {high}]"
    folds = count(len(arm.best.units), "fold")
    line = f"Cross-validated {study.metric} {score(study, estimate.mean)}{interval}, {folds}"
    if interval:
        line += ", Nadeau-Bengio corrected"
    elif estimate.n < MIN_SEEDS:
        line += " (too few for an interval)"
    line += f", {choice(arm)}"
    if not setting.procedure and len(study.rows) > 1:
        line += f", of {arm.name}"
    lines = [*pooled_lines(study, arm), over_folds()] if interval else pooled_lines(study, arm)
    if setting.procedure:
        lines.insert(0, procedure_line(study, setting.procedure))
    elif len(arm.rows) > 1 or len(setting.arms) > 1:
        lines.append(
            "The configuration was chosen by the mean validation of all folds, which also held the other folds' test "
            "samples: evaluation=nested chooses in each fold."
        )
    if setting.reference is None and setting.transfers:
        lines.append(f"Whether transfer helps needs a run from scratch. {missing(study, setting)}")
    return Answer("scored", line, lines)


def procedure_line(study: Study, procedure: Arm) -> str:
    """What nested cross-validation scores, and what its folds chose."""
    best = procedure.best
    chosen = "; ".join(f"{key} {best.overrides[key]}" for key in study.varied if best.overrides.get(key))
    center = statistics.fmean(best.units)
    return (
        f"The procedure, in which each fold chooses among {count(len(procedure.rows), 'configuration')} by its own "
        f"validation: {study.metric} {score(study, center)}. Chosen (folds): {chosen}."
    )


def pooled_lines(study: Study, arm: Arm) -> list[str]:
    """The scores over all out-of-fold predictions together; none where they were not kept or a fold is missing."""
    found, samples = pooled(arm.best), num_tested(arm.best)
    if not found or samples is None:
        return []
    values = ", ".join(f"{metric} {value:.4f}" for metric, value in found.items())
    return [f"Over all {samples:,} out-of-fold predictions together: {values}."]


def over_folds(together: str = "", p: str = "") -> str:
    """What an interval over folds is."""
    return (
        f"The 95 % interval is over folds{together}, whose training sets overlap; seeds are averaged. The correction "
        f"was derived for random splits, and may over-cover for folds.{p}"
    )


def details(study: Study, one: Comparison) -> list[str]:
    """What the interval holds, from how many samples it comes, and what more seeds cannot change."""
    test = one.arm.best.numbers("data", "target", "test")
    samples = f"{test[0]:,.0f} test samples" if test else "the test samples"
    if found := num_tested(one.arm.best):
        samples = f"{found:,} test samples of all folds"
    means = [arm.best.mean("score", "value") or 0.0 for arm in (one.arm, one.reference)]
    by = "folds of the training labels" if all_chose_by(one.arm.rows, "budget") else "validation"
    tried = [f"{arm.name} of {count(len(arm.rows), 'configuration')}" for arm in (one.arm, one.reference)]
    lines = [
        f"{one.arm.name} {score(study, means[0])} against {one.reference.name} {score(study, means[1])} "
        f"({study.metric} on {samples}). Both were chosen by {by}: {', '.join(tried)}."
    ]
    if one.interval is None:
        return lines
    together = f", simultaneous over {one.family} comparisons" if one.family > 1 else ""
    if one.look > 1:
        together += f", at look {one.look} of this sweep ({100 * (1 - level(one.look)):.1f} % for this one)"
    p = f" Holm's p {one.p:.2g}." if one.p is not None else ""
    varies = len({results.get("seeds", {}).get("pretrain") for results in one.arm.best.finished}) > 1
    seeds_of = "seeds (of pretraining too)" if varies else "seeds"
    if one.unit == "fold":
        lines += [over_folds(together, p), *pooled_lines(study, one.arm)]
    elif one.splits > 1:
        lines.append(f"The 95 % interval is over new splits of these data{together}; seeds are averaged.{p}")
    elif one.crossed is None:
        lines.append(
            f"The 95 % interval is over {seeds_of} on this test set alone{together}: without test predictions to pair, "
            f"or for {study.metric}, what other test samples would change is not in it.{p}"
        )
    else:
        seeds, cases = one.crossed.seeds**0.5, one.crossed.samples**0.5
        grouped = bool(test) and one.crossed.cases < test[0]
        unit = "groups of test samples" if grouped else "test samples"
        number = f"{one.crossed.cases:,} " if grouped else ""
        lines.append(
            f"The 95 % interval is over new {seeds_of} and new {unit}{together}; it holds "
            f"{'no other splits' if varies else 'neither other splits nor other pretraining'}. Standard error from "
            f"seeds {size(study, seeds)}, from {number}{unit} {size(study, cases)}.{p}"
        )
        if one.verdict == "unclear" and test_bounds(study, one):
            lines.append(
                f"More seeds alone cannot show {size(study, smallest(study, one))} here: the test samples leave a "
                f"standard error of {size(study, one.crossed.floor)} whatever their number."
            )
    return lines


def compute(one: Comparison) -> list[str]:
    """What both sides of a comparison took to train; nothing of an older Graft's runs."""
    mine, scratch = (arm.best.finished[0].get("cost") for arm in (one.arm, one.reference))
    if not mine or not scratch:
        return []
    numbers = [f"{cost['target_steps']:,}" for cost in (mine, scratch)]
    steps = f"{one.arm.name} took {numbers[0]} steps on the target, {one.reference.name} {numbers[1]}"
    if mine["flops"]["total"] is None:
        return [f"{steps}; pretraining's FLOPs are not known."]
    with_pretraining = ", pretraining included" if mine["flops"]["pretraining"] else ""
    return [f"{steps}; {mine['flops']['total']:.2g} and {scratch['flops']['total']:.2g} FLOPs{with_pretraining}."]


def missing(study: Study, setting: Setting) -> str:
    """The command that adds the reference to the sweep; none for a head that grew, which no run from scratch has."""
    if any(job.overrides.get("head.grow", "").lower() == "true" for job in study.jobs):
        return "These runs go on with a finished run's classes: their pages tell what each class lost and won."
    keys = dict.fromkeys(key for job in study.jobs for key in job.overrides)
    words = []
    for key in keys:
        values = list(dict.fromkeys(job.overrides[key] for job in study.jobs if key in job.overrides))
        arm = key not in study.same and role(key) == "arm" and key not in REPEATS
        replaced = ("strategy", "strategy.") if setting.reference_name == "scratch" else ("term", "term.")
        if key != replaced[0] and not key.startswith(replaced[1]) and not arm:
            words.append(shlex.quote(f"{key}={','.join(values)}"))
    words += [
        "strategy=scratch" if setting.reference_name == "scratch" else "'term=[]'",
        override("hydra.sweep.dir", study.folders[0]),
    ]
    return f"Add it with: {program()} -m {' '.join(words)}"


def choice(arm: Arm) -> str:
    """By which rule and with how many labels configurations and checkpoints were chosen."""
    results = arm.best.finished[0]
    selection = results.get("selection") or {}
    if not selection.get("monitor") and selection.get("rule") != "budget":
        return "chosen by nothing but the order of the jobs (the last epoch was tested)"
    _, choosing = labels_of(results)
    oracle = ", oracle" if selection.get("oracle") else ""
    used = f" ({choosing:,} labels{oracle})" if choosing else ""
    return f"chosen by {selection['rule']}{used}"


def smallest(study: Study, one: Comparison) -> float:
    """The difference that a study should be able to see."""
    if study.in_points:
        return SMALLEST
    return SMALLEST * abs(one.reference.best.mean("score", "value") or 1.0)


def difference(study: Study, value: float) -> str:
    """A gain with its sign: +7.0 points; of an error, +1.2 mae says by how much it falls."""
    better = "" if study.higher_is_better else " lower"
    return f"{shown(study, value, sign=True)} {'points' if study.in_points else study.metric + better}"


def shown(study: Study, value: float, *, sign: bool = False) -> str:
    """A difference as a number, in points where the metric is a fraction, and then no further than it can go."""
    if study.in_points:
        value = 100 * min(max(value, -1.0), 1.0)
        return f"{value:{'+' if sign else ''}.1f}"
    return f"{value:{'+' if sign else ''}.3g}"


def size(study: Study, value: float) -> str:
    """A difference without a direction, with its unit."""
    return f"{100 * value:.2f} points" if study.in_points else f"{value:.3g}"


def score(study: Study, value: float) -> str:
    """A score: a fraction in percent."""
    return f"{100 * value:.1f} %" if study.in_points else f"{value:.4g}"


def count(number: int, noun: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_line(found: Sequence[Answer]) -> str:
    """What a terminal shows: the only answer, with what would give one; or how many settings say what."""
    if len(found) == 1:
        return " ".join([found[0].line, *(found[0].details if found[0].verdict == "missing" else [])])
    words = {"helps": "helps", "hurts": "hurts", "unclear": "does not tell", "missing": "has no answer"}
    words["scored"] = "is not compared"
    counts = {word: sum(one.verdict == verdict for one in found) for verdict, word in words.items()}
    line = f"Transfer {', '.join(f'{word} in {n}' for word, n in counts.items() if n)} of {len(found)} settings"
    beaten = sum(one.baseline for one in found)
    return f"A baseline does as well in {beaten} of {len(found)} settings. {line}" if beaten else line
