"""What a sweep's folder is read as, its answer, and what its checks find; on folders with chosen predictions."""

import json
import shlex

import numpy as np
import pyarrow
import pytest
import yaml
from pyarrow import parquet
from scipy import stats

from graft.report import answer, checks, looks, scaling, study, summary, sweep_page
from graft.report.statistics import crossed
from graft.runs.folder import SweepFolder
from graft.runs.roles import role

TEST, TRAIN, VAL = 200, 500, 100
CLASSES = ["a", "b"]


class Sweep:
    """Writes jobs' folders, as runs leave them."""

    def __init__(self, folder):
        self.folder, self.jobs = folder, 0
        self.labels = np.arange(TEST) % 2
        self.groups = None

    def add(self, overrides, right, *, val=None, kept=True, split=0, **more):
        """A job that is right on the test samples where `right` `(TEST,)` says so."""
        overrides = dict(line.split("=", 1) for line in overrides.split())
        seed = int(overrides.get("seed", 0))
        self.jobs += 1
        folder = self.folder / f"{self.jobs:03}"
        folder.mkdir(parents=True)
        (folder / "overrides.yaml").write_text(yaml.safe_dump([f"{k}={v}" for k, v in overrides.items()]))
        correct = np.asarray(right, dtype=bool)
        score = float(correct.mean())
        results = {
            "format": 1,
            "status": "done",
            "name": "toy",
            "overrides": [f"{k}={v}" for k, v in overrides.items()],
            "weights": None if overrides.get("strategy", "").startswith("scratch") else {"source": "imagenet"},
            "data": {"target": {"train": TRAIN, "val": VAL, "test": TEST, "labels": {"train": TRAIN, "val": VAL}}},
            "score": {"metric": "test/target/acc", "value": score, "higher_is_better": True},
            "selection": {"rule": "target_val", "monitor": "val/target/acc", "mode": "max", "value": val or score},
            "metrics": {"test/target/acc": score},
            "parameters": {"total": 10, "trainable": 5},
            "time": {"fit_s": 1.0, "total_s": 2.0},
            "phases": [{"epochs": [0, 9]}],
            "seeds": {"train": seed, "split": split},
        }
        results["selection"]["epoch"] = 5
        for key, value in more.items():
            both = isinstance(results.get(key), dict) and value is not None
            results[key] = {**results[key], **value} if both else value
        (folder / "results.json").write_text(json.dumps(results))
        if kept:
            predicted = np.where(correct, self.labels, 1 - self.labels)
            sure = np.full(TEST, 0.8)
            probabilities = np.where(predicted[:, None] == np.arange(2), sure[:, None], 1 - sure[:, None])
            columns = {
                "domain": ["target"] * TEST,
                "index": list(range(TEST)),
                "sample": [f"sample {n}" for n in range(TEST)],
                "label": [CLASSES[n] for n in self.labels],
                "prediction": [CLASSES[n] for n in predicted],
                "probabilities": probabilities.tolist(),
            }
            if self.groups is not None:
                columns["group"] = self.groups
            table = pyarrow.table(columns).replace_schema_metadata({"classes": json.dumps({"target": CLASSES})})
            parquet.write_table(table, folder / "predictions.parquet")
        (folder / "DONE").touch()

    def strategies(self, seeds=5, noise=0.02, **accuracies):
        """`seeds` jobs of each strategy, with an accuracy that varies by seed and the same difficulty of samples."""
        random = np.random.default_rng(0)
        difficulty = random.random(TEST)
        for name, accuracy in accuracies.items():
            for seed in range(seeds):
                level = accuracy + random.normal(0, noise)
                wrong = random.random(TEST) < 0.02
                self.add(f"strategy={name} seed={seed}", (difficulty < level) ^ wrong)
        return self

    def claim(self):
        """Make it Graft's, so that pages and looks can be written into it."""
        folder = SweepFolder(self.folder, beside=[path.name for path in self.folder.iterdir()])
        folder.take()
        folder.claim()
        folder.release()

    def read(self):
        return study.read([self.folder])

    def answer(self):
        return answer.answers(self.read())[0]


@pytest.fixture
def sweep(tmp_path):
    return Sweep(tmp_path)


def test_test_samples_that_belong_together_count_as_groups(tmp_path):
    found = []
    for groups in (None, [number // 10 for number in range(TEST)]):
        sweep = Sweep(tmp_path / str(groups is None))
        sweep.groups, random = groups, np.random.default_rng(0)
        hard = np.repeat(random.random(TEST // 10), 10)  # a group is right or wrong as a whole
        for seed in range(5):
            for name, accuracy in (("scratch", 0.6), ("full", 0.7)):
                sweep.add(f"strategy={name} seed={seed}", hard < accuracy + random.normal(0, 0.02))
        found.append((sweep.read().comparisons[0].crossed, " ".join(sweep.answer().details)))
    (alone, said), (grouped, said_grouped) = found
    assert grouped.estimate.mean == pytest.approx(alone.estimate.mean)
    assert (alone.cases, grouped.cases) == (TEST, TEST // 10)
    assert grouped.samples > 5 * alone.samples
    assert "from 20 groups of test samples" in said_grouped
    assert "groups" not in said


def unlabelled(term):
    """What a run of an unlabelled target has in its record."""
    return {
        "labels": {"training": 0, "choosing": 0},
        "terms": term.strip("[]").split(",") if term != "[]" else [],
        "weights": {"source": "source"},
        "selection": {"rule": "entropy", "monitor": "selection/entropy", "mode": "min"},
    }


def test_of_a_target_without_labels_terms_are_compared_with_the_source_alone(sweep):
    random = np.random.default_rng(0)
    for seed in range(5):
        for term, accuracy in (("[]", 0.6), ("[dann]", 0.8)):
            right = random.random(TEST) < accuracy
            sweep.add(f"term={term} seed={seed}", right, val=1 - accuracy, **unlabelled(term))
    found = sweep.answer()
    assert found.verdict == "helps"
    assert found.line.startswith("Adaptation helps: +")
    assert "over source only [" in found.line
    assert sweep.read().settings[0].reference.name == "no term"


def test_without_the_source_alone_it_says_how_to_add_it(sweep):
    for seed in range(3):
        sweep.add(f"term=[dann] strategy=full seed={seed}", np.ones(TEST), **unlabelled("[dann]"))
    found = sweep.answer()
    assert found.line == "No answer yet: there is no run without a term (source only) to compare with."
    assert "strategy=full seed=0,1,2 'term=[]'" in found.details[0]


def test_rows_are_in_the_order_of_what_the_rule_followed(sweep):
    """By entropy lower is better, although the score is an accuracy."""
    for rate, entropy, accuracy in (("1e-3", 0.2, 0.6), ("1e-2", 0.9, 0.9)):
        right = np.arange(TEST) < accuracy * TEST
        sweep.add(f"term=[] optimizer.lr={rate} seed=0", right, val=entropy, **unlabelled("[]"))
    assert [row.overrides["optimizer.lr"] for row in sweep.read().rows] == ["1e-3", "1e-2"]


def test_transfer_that_helps(sweep):
    found = sweep.strategies(scratch=0.6, full=0.8).answer()
    assert found.verdict == "helps"
    assert found.line.startswith("Transfer helps: +")
    assert found.line.endswith("5 seeds, paired by seed, chosen by target_val (100 labels)")
    (one,) = sweep.read().comparisons
    low, high = one.interval
    assert f"{100 * one.estimate.mean:+.1f} points over scratch [{100 * low:.1f}, {100 * high:.1f}]" in found.line


def test_transfer_that_hurts(sweep):
    found = sweep.strategies(scratch=0.8, full=0.6).answer()
    assert (found.verdict, found.line[:15]) == ("hurts", "Transfer hurts:")
    assert "negative-transfer" in codes(sweep)


def test_seeds_that_do_not_tell_say_how_many_more_would(sweep):
    found = sweep.strategies(scratch=0.70, full=0.71, noise=0.04).answer()
    assert found.verdict == "unclear"
    assert "The seeds do not tell: " in found.line
    assert " more (" in found.line
    assert found.line.endswith("at 1 point on these test samples; on new ones more seeds alone cannot show it")
    assert any("More seeds alone cannot show 1.00 points here" in line for line in found.details)


def test_two_seeds_are_too_few_and_one_too(sweep):
    sweep.strategies(seeds=2, scratch=0.5, full=0.9)
    assert sweep.answer().verdict == "unclear"
    assert sweep.answer().line.startswith("2 seeds: too few to tell. +")
    assert "one-seed" in codes(sweep)


def test_equal_differences_show_no_spread(sweep):
    for seed in range(3):
        sweep.add(f"strategy=scratch seed={seed}", np.arange(TEST) < 100, kept=False)
        sweep.add(f"strategy=full seed={seed}", np.arange(TEST) < 150, kept=False)
    assert sweep.answer().line.startswith("No spread seen: +25.0 points over scratch in every one of 3 seeds")


def test_without_scratch_the_answer_is_the_command_that_adds_it(sweep):
    sweep.strategies(seeds=2, frozen=0.7, full=0.8)
    found = sweep.answer()
    assert found.verdict == "missing"
    command = shlex.split(found.details[0])
    assert {"-m", "strategy=scratch", "seed=0,1", f"hydra.sweep.dir={sweep.folder}"} <= set(command)
    assert "strategy=frozen" not in found.details[0]


def test_the_interval_is_over_seeds_and_samples_where_predictions_were_kept(sweep):
    sweep.strategies(scratch=0.6, full=0.8)
    (one,) = sweep.read().comparisons
    rows = {arm.name: study.contributions_of(list(arm.jobs.values())) for arm in sweep.read().settings[0].arms}
    expected = crossed(rows["full"] - rows["scratch"]).estimate
    assert one.estimate == expected
    assert one.estimate.error > one.over_seeds.error


def test_without_predictions_the_interval_is_over_seeds_alone(sweep):
    for seed, (scratch, full) in enumerate([(100, 150), (110, 154), (95, 149)]):
        sweep.add(f"strategy=scratch seed={seed}", np.arange(TEST) < scratch, kept=False)
        sweep.add(f"strategy=full seed={seed}", np.arange(TEST) < full, kept=False)
    (one,) = sweep.read().comparisons
    reference = stats.ttest_rel([150 / 200, 154 / 200, 149 / 200], [100 / 200, 110 / 200, 95 / 200])
    assert one.interval == pytest.approx(tuple(reference.confidence_interval()))
    assert one.p == pytest.approx(reference.pvalue)
    assert "seeds-alone" in codes(sweep)


@pytest.mark.parametrize("damage", ["cut", "of another run"])
def test_predictions_that_are_not_the_scores_are_not_used(sweep, damage):
    sweep.strategies(seeds=3, scratch=0.6, full=0.8)
    file = sweep.folder / "004" / "predictions.parquet"
    other = sweep.folder / "001" / "predictions.parquet"
    file.write_bytes(file.read_bytes()[:100] if damage == "cut" else other.read_bytes())
    (one,) = sweep.read().comparisons
    assert one.crossed is None
    assert one.interval is not None


def test_only_seeds_that_both_have_are_compared(sweep):
    sweep.strategies(seeds=4, scratch=0.6)
    sweep.strategies(seeds=3, full=0.8)
    (one,) = sweep.read().comparisons
    assert one.pairs == len(one.differences) == 3


def test_the_rate_is_chosen_by_validation_and_not_by_test(sweep):
    for seed in range(3):
        sweep.add(f"strategy=scratch optimizer.lr=0.1 seed={seed}", np.arange(TEST) < 100)
        sweep.add(f"strategy=full optimizer.lr=0.1 seed={seed}", np.arange(TEST) < 120, val=0.9)
        sweep.add(f"strategy=full optimizer.lr=0.01 seed={seed}", np.arange(TEST) < 180, val=0.8)
    (one,) = sweep.read().comparisons
    assert one.arm.best.overrides["optimizer.lr"] == "0.1"
    assert one.estimate.mean == pytest.approx(0.1)
    assert {"best-at-the-edge", "baseline-without-its-own-rate"} <= codes(sweep)


def test_batchnorm_that_trained_in_some_jobs_of_a_strategy_alone_is_said(sweep):
    kept = {"strategy.train_bn": False}
    for seed in range(3):
        sweep.add(f"strategy=scratch objective.alpha=0 seed={seed}", np.arange(TEST) < 100, settings={})
        sweep.add(f"strategy=full objective.alpha=0 seed={seed}", np.arange(TEST) < 120, settings=kept)
    assert "batchnorm-differs" not in codes(sweep)
    sweep.add("strategy=full objective.alpha=0.5 seed=0", np.arange(TEST) < 120, settings={})
    (one,) = [one for one in checks.findings(sweep.read()) if one.code == "batchnorm-differs"]
    assert "in 3 of 4 jobs strategy=full, and trained" in one.sentence


def test_a_family_of_strategies_has_wider_intervals_and_adjusted_p(sweep):
    sweep.strategies(scratch=0.6, full=0.75, frozen=0.7, lora=0.65)
    found = sweep.read().comparisons
    assert [one.family for one in found] == [3, 3, 3]
    for one in found:
        assert one.interval == pytest.approx(one.estimate.interval(confidence=1 - 0.05 / 3))
    smallest = min(found, key=lambda one: one.estimate.p)
    assert smallest.p == pytest.approx(min(1, 3 * smallest.estimate.p))


def test_seeds_added_after_a_look_make_the_claim_harder(sweep):
    sweep.strategies(seeds=3, scratch=0.6, full=0.8).claim()
    first = sweep.read()
    looks.remember(first.folders, study.repeats_of(first.settings))
    assert [one.look for one in sweep.read().comparisons] == [1]  # the same seeds are the same look
    for seed in (3, 4):
        sweep.add(f"strategy=scratch seed={seed}", np.arange(TEST) < 120)
        sweep.add(f"strategy=full seed={seed}", np.arange(TEST) < 155 + seed)
    second = sweep.read()
    (one,) = second.comparisons
    assert one.look == 2
    assert one.interval == pytest.approx(one.estimate.interval(1 - 0.0294))
    assert one.p == pytest.approx(one.estimate.p * 0.05 / 0.0294)
    assert any("at look 2 of this sweep (97.1 % for this one)" in line for line in sweep.answer().details)
    looks.remember(second.folders, study.repeats_of(second.settings))
    assert [one.look for one in sweep.read().comparisons] == [2]
    (sweep.folder / "looks.json").write_text("[[[0,")
    assert [one.look for one in sweep.read().comparisons] == [1]


def test_the_levels_of_many_looks_go_on_falling():
    levels = [looks.level(look) for look in range(1, 30)]
    assert levels[0] == 0.05
    assert levels == sorted(levels, reverse=True)


def test_several_splits_are_the_unit_and_corrected(sweep):
    right = {"scratch": (100, 104, 96, 100), "full": (120, 130, 118, 124)}
    for name, counts in right.items():
        for split, count in enumerate(counts):
            for seed in range(2):
                line = f"strategy={name} data.split_seed={split} seed={seed}"
                sweep.add(line, np.arange(TEST) < count + 2 * seed, split=split)
    (one,) = sweep.read().comparisons
    assert (one.splits, one.pairs, one.crossed) == (4, 8, None)
    differences = np.array([20, 26, 22, 24]) / TEST
    half = stats.t(3).ppf(0.975) * np.sqrt((1 / 4 + TEST / (TRAIN + VAL)) * differences.var(ddof=1))
    assert one.interval == pytest.approx((differences.mean() - half, differences.mean() + half))
    rows = summary.fold(sweep.read().jobs)
    assert [(len(row.scores), summary.half_interval(row)) for row in rows] == [
        (
            8,
            pytest.approx(
                stats.t(3).ppf(0.975) * np.sqrt((1 / 4 + TEST / (TRAIN + VAL)) * np.var(counts, ddof=1)) / TEST
            ),
        )
        for counts in (right["full"], right["scratch"])
    ]
    table = summary.table_of(sweep.read().jobs)
    assert table.count("4 splits, 8 jobs") == 2
    assert "data.split_seed" not in table
    assert sweep.read().settings[0].arms[0].estimate()[0].n == 4
    line = sweep.answer().line
    assert "4 splits, Nadeau-Bengio corrected" in line
    assert "more" not in line


def test_label_budgets_are_settings_with_an_answer_each(sweep):
    for budget, accuracy in ((2, 150), (20, 101)):
        for seed in range(3):
            line = f"data.labels_per_class={budget} seed={seed}"
            sweep.add(f"{line} strategy=scratch", np.arange(TEST) < 100 + seed)
            sweep.add(f"{line} strategy=full", np.arange(TEST) < accuracy + (5 * seed if budget == 20 else seed))
    found = answer.answers(sweep.read())
    assert [one.line.split(":")[0] for one in found] == ["data.labels_per_class=2", "data.labels_per_class=20"]
    assert [one.verdict for one in found] == ["helps", "unclear"]
    assert answer.first_line(found) == "Transfer helps in 1, does not tell in 1 of 2 settings"


def cost(steps, pretraining, target, matches=False):
    """A run's `cost` with these FLOPs."""
    total = None if pretraining is None else pretraining + target
    flops = {"pretraining": pretraining, "target": target, "total": total}
    return {"cost": {"target_steps": steps, "flops": flops, "matches_flops": matches}}


def compared(sweep, pretraining=9e9, matched=True):
    """Three seeds of full, of scratch with as many steps and, better by validation, of scratch with as many FLOPs."""
    for seed in range(3):
        sweep.add(f"strategy=full seed={seed}", np.arange(TEST) < 180 - seed, **cost(100, pretraining, 1e9))
        sweep.add(f"strategy=scratch seed={seed}", np.arange(TEST) < 120 + seed, **cost(100, 0.0, 1e9))
        if matched:
            longer = cost(1000, 0.0, 1e10, matches=True)
            sweep.add(f"strategy=scratch_matched seed={seed}", np.arange(TEST) < 140 + seed, **longer)
    return sweep


def test_of_two_scratches_the_better_by_validation_is_the_baseline_and_named(sweep):
    found = compared(sweep).answer()
    assert "over scratch with equal FLOPs [" in found.line
    expected = "full took 100 steps on the target, scratch_matched 1,000; 1e+10 and 1e+10 FLOPs, pretraining included."
    assert expected in found.details
    assert "baseline-with-less-compute" not in codes(sweep)


def test_a_scratch_with_less_compute_is_pointed_out(sweep):
    found = compared(sweep, matched=False).answer()
    assert "over scratch [" in found.line
    assert "baseline-with-less-compute" in codes(sweep)


def test_pretraining_of_unknown_cost_is_said(sweep):
    found = compared(sweep, pretraining=None, matched=False).answer()
    assert "full took 100 steps on the target, scratch 100; pretraining's FLOPs are not known." in found.details
    assert "baseline-with-less-compute" not in codes(sweep)


def test_an_interval_over_seeds_of_pretraining_says_so(sweep):
    for seed in range(3):
        for name, right in (("scratch", 120 + seed), ("full", 180 - 2 * seed)):
            sweep.add(f"strategy={name} seed={seed}", np.arange(TEST) < right, seeds={"pretrain": seed})
    details = " ".join(sweep.answer().details)
    assert "over new seeds (of pretraining too) and new test samples; it holds no other splits." in details


def diverge(sweep, *lines):
    """Jobs that are done and diverged."""
    for number, line in enumerate(lines):
        folder = sweep.folder / f"diverged {number}"
        folder.mkdir()
        (folder / "overrides.yaml").write_text(yaml.safe_dump(line.split()))
        (folder / "results.json").write_text(json.dumps({"format": 1, "status": "diverged", "message": "loss is nan"}))
        (folder / "DONE").touch()


def test_lost_seeds_are_counted_in_the_answer_and_the_tables(sweep):
    sweep.strategies(seeds=4, scratch=0.6, full=0.8)
    sweep.add("strategy=scratch seed=4", np.arange(TEST) < 120)
    diverge(sweep, "strategy=full seed=4")
    assert "4 of 5 seeds (full 1 diverged), paired by seed" in sweep.answer().line
    found = sweep.read()
    table = sweep_page.strategies(found, found.settings[0])
    assert [row[table.header.index("seeds")] for row in table.rows] == ["4 of 5; 1 diverged", "5"]
    assert "4 of 5; 1 diverged" in summary.table_of(found.jobs)


def test_what_diverged_in_half_of_its_seeds_is_not_chosen_for_the_lucky_others(sweep):
    for seed in range(4):
        sweep.add(f"strategy=full optimizer.lr=0.1 seed={seed}", np.arange(TEST) < 150)
    sweep.add("strategy=full optimizer.lr=1 seed=0", np.arange(TEST) < 199)
    sweep.add("strategy=full optimizer.lr=1 seed=1", np.arange(TEST) < 199)
    diverge(sweep, "strategy=full optimizer.lr=1 seed=2", "strategy=full optimizer.lr=1 seed=3")
    (arm,) = sweep.read().settings[0].arms
    assert [row.overrides["optimizer.lr"] for row in arm.rows] == ["0.1", "1"]


def test_for_errors_a_gain_is_a_fall(sweep):
    for seed in range(3):
        for name, value in (("scratch", 3.0), ("full", 2.5 + 0.01 * seed)):
            score = {"metric": "test/target/mae", "value": value, "higher_is_better": False}
            sweep.add(f"strategy={name} seed={seed}", np.ones(TEST), kept=False, score=score)
    assert sweep.answer().line.startswith("Transfer helps: +0.49 mae lower over scratch [0.465, 0.515]")


def test_two_sweeps_are_read_as_one(tmp_path):
    first, second = Sweep(tmp_path / "first"), Sweep(tmp_path / "second")
    first.strategies(scratch=0.6, full=0.8)
    second.strategies(full=0.8, frozen=0.7)
    found = study.read([first.folder, second.folder])
    assert len(found.jobs) == 15  # those of `full` are the same jobs
    assert {one.arm.name for one in found.comparisons} == {"full", "frozen"}


def add_with_config(sweep, config, overrides, count):
    """Three seeds of a job that keeps its config."""
    for seed in range(3):
        sweep.add(f"{overrides} seed={seed}", np.arange(TEST) < count + seed)
        (sweep.folder / f"{sweep.jobs:03}" / "config.yaml").write_text(yaml.safe_dump(config))


def test_what_one_sweep_leaves_alone_and_another_gives_is_one_setting(tmp_path):
    """By the value in the first one's config, which the second writes in another way."""
    first, second = Sweep(tmp_path / "first"), Sweep(tmp_path / "second")
    config = {"data": {"target": {"name": "usps"}, "labels_per_class": 5}, "strategy": {"_target_": "some.Class"}}
    config["objective"] = {"alpha": 0.001, "alpha_end": None}
    for name, count in (("scratch", 100), ("full", 140)):
        add_with_config(first, config, f"strategy={name}", count)
    given = "data.target.name='usps' data.labels_per_class=5 objective.alpha=1e-3 objective.alpha_end=null term=[]"
    for name, count in (("full", 140), ("frozen", 120)):
        add_with_config(second, config, f"strategy={name} {given}", count)
    found = study.read([first.folder, second.folder])
    assert found.varied == ["strategy"]
    assert len(found.jobs) == 9  # those of `full` are the same jobs
    assert {one.arm.name for one in found.settings[0].comparisons} == {"full", "frozen"}


def test_another_value_than_the_config_s_is_another_setting_and_an_option_is_in_no_config(tmp_path):
    first, second = Sweep(tmp_path / "first"), Sweep(tmp_path / "second")
    config = {"data": {"labels_per_class": None}, "head": {"_target_": "some.Head"}, "term": {"l2sp": {}, "mcc": {}}}
    for name in ("scratch", "full"):
        add_with_config(first, config, f"strategy={name}", 120)
        add_with_config(second, config, f"strategy={name} data.labels_per_class=5 head=mlp term=[coral]", 140)
    found = study.read([first.folder, second.folder])
    assert {row.overrides["data.labels_per_class"] for row in found.rows} == {"null", "5"}
    assert {(row.overrides.get("head"), row.overrides["term"]) for row in found.rows} == {
        (None, "[l2sp,mcc]"),
        ("mlp", "[coral]"),
    }
    assert [setting.name for setting in found.settings] == [f"data.labels_per_class={n}" for n in ("5", "null")]


def test_each_setting_names_what_its_own_runs_are_compared_with(tmp_path):
    """Of two sweeps read as one, one has labels of the target and one has none."""
    sweep = Sweep(tmp_path)
    for seed in range(3):
        for strategy, count in (("scratch", 100), ("full", 140 + seed)):
            sweep.add(f"data.target_setting=supervised strategy={strategy} seed={seed}", np.arange(TEST) < count)
        for term, count in (("[]", 100), ("[dann]", 60 + seed)):
            overrides = f"data.target_setting=unsupervised term={term} seed={seed}"
            sweep.add(overrides, np.arange(TEST) < count, val=count, **unlabelled(term))
    found = sweep.read()
    lines = {one.line.split(" points")[0] for one in answer.answers(found)}
    assert lines == {"supervised: Transfer helps: +20.5", "unsupervised: Adaptation hurts: -19.5"}
    assert {setting.reference_name for setting in found.settings} == {"scratch", "source only"}
    (told,) = [one.sentence for one in checks.findings(found) if one.code == "negative-transfer"]
    assert told.startswith("Worse than source only: term=[dann] (-19.5 points)")


def test_a_command_that_all_settings_need_is_shown_once(sweep):
    for labels in (5, 20):
        for seed in range(3):
            sweep.add(f"strategy=full data.labels_per_class={labels} seed={seed}", np.ones(TEST))
    found = answer.answers(sweep.read())
    assert [len(one.details) for one in found] == [0, 1]
    assert "data.labels_per_class=20,5" in found[1].details[0]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("strategy", "arm"),
        ("term", "arm"),
        ("backbone.weights", "arm"),
        ("objective.alpha", "arm"),
        ("strategy.r", "tuned"),
        ("optimizer.lr", "tuned"),
        ("data.batch_size", "tuned"),
        ("data.labels_per_class", "setting"),
        ("data/domain@data.target", "setting"),
        ("backbone", "setting"),
    ],
)
def test_what_a_varied_key_is_for(key, expected):
    assert role(key) == expected


def codes(sweep):
    return {one.code for one in checks.findings(sweep.read())}


def baseline(val, test, title="gradient boosting"):
    metrics = {"val/target/acc": val, "test/target/acc": test}
    return {"title": title, "fitted_on": "9 labels", "metrics": metrics, "seconds": 0.1}


def test_a_baseline_that_validation_prefers_and_that_does_as_well_comes_first(sweep):
    beside = {
        "majority": baseline(0.5, 0.5),
        "boosting": baseline(0.7, 0.95),  # the best on test, which chooses nothing
        "linear_columns": baseline(0.8, 0.9, "logistic regression on raw columns"),
    }
    for seed in range(3):
        for name, right in (("scratch", 110), ("full", 150)):
            sweep.add(f"strategy={name} seed={seed}", np.arange(TEST) < right - seed, baselines=beside)
    found = sweep.answer()
    first = "Logistic regression on raw columns (9 labels) does as well: 90.0 %, full 74.5 %. Transfer helps: +"
    assert found.line.startswith(first)
    assert found.baseline
    (one,) = (one for one in checks.findings(sweep.read()) if one.code == "baseline-does-as-well")
    reach = "logistic regression on raw columns 90.0 % (9 labels); gradient boosting 95.0 % (9 labels)."
    assert one.sentence == f"Baselines do as well as full with 74.5 %: {reach}"


def test_a_baseline_that_falls_short_is_not_spoken_of(sweep):
    for seed in range(3):
        for name, right in (("scratch", 110), ("full", 150)):
            more = {"baselines": {"boosting": baseline(0.9, 0.7)}}
            sweep.add(f"strategy={name} seed={seed}", np.arange(TEST) < right - seed, **more)
    assert sweep.answer().line.startswith("Transfer helps")
    assert "baseline-does-as-well" not in codes(sweep)


@pytest.mark.parametrize(("key", "test", "told"), [("boosting", 0.7, True), ("boosting", 0.5, False)])
@pytest.mark.parametrize("pretrained", ["", "_features", "_pooled"])
def test_a_baseline_that_beats_scratch_without_the_source_is_told(sweep, key, test, told, pretrained):
    for seed in range(3):
        for name, right in (("scratch", 110), ("full", 150)):
            more = {"baselines": {f"{key}{pretrained}": baseline(0.9, test)}}
            sweep.add(f"strategy={name} seed={seed}", np.arange(TEST) < right - seed, **more)
    assert ("baseline-beats-scratch" in codes(sweep)) is (told and not pretrained)


@pytest.mark.parametrize(("epochs", "code"), [((9,), False), ((4, 9), True)])
def test_a_run_that_was_validated_once_is_not_called_improving(sweep, epochs, code):
    for seed in range(3):
        for name, right in (("scratch", 110), ("full", 150)):
            sweep.add(f"strategy={name} seed={seed}", np.arange(TEST) < right - seed, selection={"epoch": 9})
    for folder in sweep.folder.glob("0*"):
        lines = "".join(f"{epoch},{epoch},0.5\n" for epoch in epochs)
        (folder / "metrics.csv").write_text(f"epoch,step,val/target/acc\n{lines}")
    assert ("still-improving" in codes(sweep)) is code


def test_where_nothing_is_transferred_no_gain_is_spoken_of(sweep):
    for seed in range(3):
        sweep.add(f"strategy=scratch seed={seed}", np.arange(TEST) < 110, baselines={"boosting": baseline(0.9, 0.7)})
    assert "baseline-beats-scratch" not in codes(sweep)
    assert "baseline-does-as-well" in codes(sweep)


ABSENT = [[4, 0, 0], [0, 4, 0], [0, 0, 0]]
CONFUSION = {"test/target": {"classes": ["a", "b"], "matrix": [[150, 0], [50, 0]]}}


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("oracle-selection", {"selection": {"oracle": True}}),
        ("test-copies-in-train", {"data": {"target": {"notes": ["3 images of test are in train too"]}}}),
        ("near-duplicates", {"data": {"target": {"notes": ["2 of 9 images of test look like one (near duplicates)"]}}}),
        ("validation-larger-than-training", {"data": {"target": {"labels": {"train": 20, "val": 297}}}}),
        ("still-improving", {"selection": {"epoch": 9}}),
        ("absent-class", {"confusion": {"test/target": {"classes": ["a", "b", "c"], "matrix": ABSENT}}}),
        ("majority-class", {"confusion": CONFUSION}),
        ("baseline-does-as-well", {"baselines": {"linear_features": baseline(0.6, 0.9)}}),
        ("baseline-beats-scratch", {"baselines": {"boosting": baseline(0.6, 0.6)}}),
        (
            "prior-mismatch",
            {"baselines": {"label_shift_mlls_columns": baseline(0.5, 0.5) | {"note": "prior mismatch"}}},
        ),
    ],
)
def test_a_check_speaks_of_its_own_matter_alone(sweep, code, more):
    def jobs(**more):
        for rate in (0.1, 0.2, 0.3):
            for seed in range(3):
                for name, right in (("scratch", 110), ("full", 150)):
                    best = 0.9 if rate == 0.2 else 0.8  # not at the grid's edge
                    line = f"strategy={name} optimizer.lr={rate} seed={seed}"
                    sweep.add(line, np.arange(TEST) < right - seed, val=best, **more)

    jobs()
    assert codes(sweep) == set()
    other = Sweep(sweep.folder / "other")
    sweep.folder, sweep.jobs = other.folder, 0
    jobs(**more)
    assert codes(sweep) == {code}


def test_jobs_that_failed_or_diverged_are_counted(sweep):
    sweep.strategies(scratch=0.6, full=0.8)
    folder = sweep.folder / "bad"
    folder.mkdir()
    (folder / "overrides.yaml").write_text("- strategy=full\n- seed=9\n")
    (folder / "error.txt").write_text("it broke\n")
    (finding,) = [one for one in checks.findings(sweep.read()) if one.code == "diverged-seeds"]
    assert finding.sentence == "Of 11 jobs 1 failed; scores and intervals leave them out."


def test_every_check_has_its_place_in_the_docs():
    from train_app import PROJECT

    text = (PROJECT / checks.DOCS).read_text()
    for check in checks.CHECKS:
        assert f"{{#{check.code}}}" in text


def test_labels_saved_are_read_off_the_curve_of_the_best_transfer(sweep):
    scratch, full = {2: 80, 4: 100, 8: 120}, {2: 100, 4: 130, 8: 150}
    for name, counts in (("scratch", scratch), ("full", full)):
        for labels, count in counts.items():
            for seed in range(3):
                line = f"data.labels_per_class={labels} strategy={name} seed={seed}"
                sweep.add(line, np.arange(TEST) < count + seed, val=0.5 + 0.1 * (name == "full"))
    (picture,), (sentence,) = scaling.of_labels(sweep.read())
    assert picture.name == "labels"
    assert sentence.startswith("full reaches scratch's 60.5 % of 8 labels a class with about 3.2 [")  # 2 * 2^(2/3)
    assert scaling.labels_for(0.9, np.array([2, 4]), np.array([0.5, 0.6])) == np.inf
    assert scaling.labels_for(0.4, np.array([2, 4]), np.array([0.5, 0.6])) == 2


def test_alpha_has_a_curve_for_each_strategy(sweep):
    for alpha, count in ((0, 100), (0.5, 130), (1, 90)):
        for seed in range(3):
            sweep.add(f"objective.alpha={alpha} strategy=full seed={seed}", np.arange(TEST) < count + seed)
    found = sweep.read()
    assert scaling.of_alpha(found, found.settings[0]).title == "Scores over alpha"
    assert scaling.of_labels(found) == ([], [])
