"""Spaces, rungs and decisions of a race, with a runner that only looks numbers up."""

import json
import math

import pytest

from graft.errors import GraftError
from graft.race import log as race_log
from graft.race.decisions import Measured, Outcome, close_calls, decide
from graft.race.log import RaceLog
from graft.race.rungs import Race
from graft.race.space import Candidate, Rung, multiplied, option_of, read

SPACE = {
    "axes": {"strategy": ["frozen", "full"], "optimizer.lr": ["1e-4", "1e-3", "1e-2"]},
    "rungs": [{"name": "short", "epochs": 0.2, "keep": 2}, {"name": "whole"}],
}
BY_LR = {"1e-4": 0.5, "1e-3": 0.8, "1e-2": 0.7}


def keys_of(overrides):
    return dict(one.split("=", 1) for one in overrides)


class Runner:
    """Accuracies from `score(keys)`, a second of CPU an epoch and half a second beside it."""

    def __init__(self, score=None, higher=True, checkpoints=False):
        self.score = score or (lambda keys: BY_LR[keys["optimizer.lr"]] + 0.1 * (keys["strategy"] == "full"))
        self.higher = higher
        self.checkpoints = checkpoints
        self.jobs = []

    def __call__(self, jobs):
        return [self.one(job) for job in jobs]

    def one(self, job):
        self.jobs.append(job)
        keys = keys_of(job.overrides)
        epochs = int(keys.get("training.epochs", 10))
        value = self.score(keys)
        if isinstance(value, str):
            return Outcome(f"job{len(self.jobs)}", failure=value)
        return Outcome(
            folder=f"job{len(self.jobs)}",
            value=value,
            metric="val/target/acc",
            higher_is_better=self.higher,
            samples=100,
            cpu_s=epochs + 0.5,
            train_share=epochs / (epochs + 0.5),
            epochs=epochs,
            can_go_on=self.checkpoints,
        )


def race(tmp_path, runner, space=SPACE, **settings):
    return Race(read(space, "a test"), runner, RaceLog(tmp_path), 10, say=lambda line: None, **settings)


def test_the_better_half_goes_on_and_the_best_wins(tmp_path):
    runner = Runner()
    one = race(tmp_path, runner)
    winner = one.winner()
    assert winner.candidate.overrides == {"strategy": "full", "optimizer.lr": "1e-3"}
    lengths = [keys_of(job.overrides).get("training.epochs") for job in runner.jobs]
    assert lengths == ["2"] * 6 + [None] * 2
    assert all("test=false" in job.overrides for job in runner.jobs)
    one.tested(winner)
    assert "test=false" not in runner.jobs[-1].overrides
    assert runner.jobs[-1].begun.folder == winner.outcomes[0].folder
    content = race_log.read(tmp_path)
    assert [len(rung["dropped"]) for rung in content["rungs"]] == [4, 1]
    assert content["result"]["candidates"] == 6
    assert content["result"]["jobs"] == 9
    assert len(race_log.lines(content)) == 3


def test_lower_is_better_for_a_loss(tmp_path):
    winner = race(tmp_path, Runner(higher=False)).winner()
    assert winner.candidate.overrides == {"strategy": "frozen", "optimizer.lr": "1e-4"}


def test_what_the_log_knows_is_not_run_again_and_decides_alike(tmp_path):
    first = race(tmp_path, Runner())
    first.tested(first.winner())
    runner = Runner(score=lambda keys: pytest.fail("it ran again"))
    second = race(tmp_path, runner)
    second.tested(second.winner())
    assert second.log.result == first.log.result


def test_a_log_from_before_is_shown_and_its_jobs_are_read_from_their_folders_again(tmp_path):
    first = race(tmp_path, Runner())
    first.tested(first.winner())
    content = json.loads((tmp_path / "race.json").read_text()) | {"format": 1}
    content["jobs"] = {key: {"folder": one["folder"], "fit_share": 0.5} for key, one in content["jobs"].items()}
    (tmp_path / "race.json").write_text(json.dumps(content))
    assert len(race_log.lines(race_log.read(tmp_path))) == 3
    assert race(tmp_path, Runner()).log.jobs == {}


def test_what_failed_is_dropped_and_tried_again_by_the_next_command(tmp_path):
    score = Runner().score
    broken = Runner(score=lambda keys: "out of memory" if keys["strategy"] == "full" else score(keys))
    assert race(tmp_path, broken).winner().candidate.overrides["strategy"] == "frozen"
    dropped = json.loads((tmp_path / "race.json").read_text())["rungs"][0]["dropped"]
    assert [one["failure"] for one in dropped] == ["", "out of memory", "out of memory", "out of memory"]
    assert race(tmp_path, Runner()).winner().candidate.overrides["strategy"] == "full"


def test_a_race_in_which_all_fail_says_why_the_first_did(tmp_path):
    with pytest.raises(GraftError, match="out of memory"):
        race(tmp_path, Runner(score=lambda keys: "out of memory")).winner()


@pytest.mark.parametrize(("budget", "whole"), [(1.0, 2), (0.45, 2), (0.35, 1)])
def test_a_share_of_the_whole_sweep_decides_how_many_go_on(tmp_path, budget, whole):
    """All six take 6 * 10.5 s whole and 6 * 2.5 s short: 0.45 pays for one more at 10.5 s, 0.35 for none."""
    runner = Runner()
    one = race(tmp_path, runner, budget=budget)
    one.winner()
    assert one.full_sweep_s == pytest.approx(63)
    paid = (budget * 63 - 15) // 10.5
    assert len(runner.jobs) - 6 == min(whole, max(int(paid), 1))


@pytest.mark.parametrize(("share_s", "on"), [(14, ["good"]), (16, ["good", "nearly"]), (99, ["good", "nearly", "bad"])])
def test_the_last_is_half_paid_for_and_a_cheap_one_does_not_pass_a_better_one(share_s, on):
    scores, costs = {"good": 0.9, "nearly": 0.8, "bad": 0.2}, {"good": 10.0, "nearly": 10.0, "bad": 1.0}
    candidates = {name: Candidate((("strategy", option_of("strategy", name)),)) for name in scores}
    measured = [Measured(candidates[name], [Outcome(name, value=value)]) for name, value in scores.items()]
    price = {candidates[name]: cost for name, cost in costs.items()}
    found = decide(Rung("short", keep=3), measured, price, share_s)
    assert [one.outcomes[0].folder for one in found.went_on] == on


def test_the_start_of_the_command_counts_for_race_and_sweep(tmp_path):
    one = race(tmp_path, Runner(), budget=0.5, start_s=20)
    one.winner()
    assert one.share_s(1) == pytest.approx(0.5 * (20 + 63) - 20 - one.log.spent_s)
    assert len(one.log.rungs[0]["went_on"]) == 1  # 6.5 s are left after 15 s of short runs


def test_seconds_end_the_first_rung_between_strategies_and_the_rest_is_not_tried(tmp_path):
    runner = Runner()
    one = race(tmp_path, runner, budget_s=14)
    assert one.winner().candidate.overrides["strategy"] == "frozen"
    assert [len(rung["untried"]) for rung in one.log.rungs] == [3, 0]
    assert "Not tried" in race_log.line_of(one.log.rungs[0])


def test_longer_training_begins_at_the_checkpoint_where_it_may_and_costs_the_rest(tmp_path):
    runner = Runner(checkpoints=True)
    one = race(tmp_path, runner)
    one.winner()
    assert [job.begun is not None for job in runner.jobs] == [False] * 6 + [True] * 2
    assert one.log.rungs[1]["how"] == "2 from their checkpoints"
    outcome = Outcome("a", cpu_s=2.5, train_share=0.8, epochs=2)
    assert outcome.predicted_s(10) == pytest.approx(10.5)
    assert outcome.predicted_s(10, begun=True) == pytest.approx(8.5)


def test_a_short_run_is_validated_once_and_a_longer_one_every_so_many_epochs():
    short = Outcome("a", cpu_s=4.0, train_share=0.5, validation_share=0.25, epochs=2, validate_every=5)
    assert short.predicted_s(20) == pytest.approx(20 + 4 + 1), "a second an epoch and a validation, and one beside"
    assert short.predicted_s(4) == pytest.approx(4 + 1 + 1)


@pytest.mark.parametrize(
    ("share", "every", "epochs"), [(0.1, 5, 2), (0.02, 1, 2), (0.3, 5, 10), (0.2, 5, 4), (0.9, 7, 20)]
)
def test_a_rung_ends_with_a_validation(tmp_path, share, every, epochs):
    space = {"axes": {"seed": [0, 1]}, "rungs": [{"name": "short", "epochs": share}, {"name": "whole"}]}
    one = Race(read(space, "a test"), Runner(), RaceLog(tmp_path), 20, validate_every=every)
    first, whole = one.space.rungs
    assert one.epochs_on(first, one.space.candidates()[0]) == epochs
    assert one.epochs_on(whole, one.space.candidates()[0]) == 20


def test_a_rung_about_one_axis_shares_jobs_and_keeps_every_candidate_of_the_better_options(tmp_path):
    space = {
        "axes": {"backbone": ["a", "b", "c"], "strategy": ["frozen", "full"]},
        "rungs": [
            {"name": "frozen", "decides": ["backbone"], "set": {"strategy": "frozen"}, "keep": 1},
            {"name": "whole"},
        ],
    }
    runner = Runner(score=lambda keys: {"a": 0.1, "b": 0.3, "c": 0.2}[keys["backbone"]])
    one = race(tmp_path, runner, space)
    assert one.winner().candidate.overrides["backbone"] == "b"
    assert len(runner.jobs) == 3 + 1  # the frozen one of b is known
    assert {entry["candidate"] for entry in one.log.rungs[0]["went_on"]} == {
        "backbone=b strategy=frozen",
        "backbone=b strategy=full",
    }


def test_probes_of_one_axis_stand_alone_and_where_none_comes_to_its_end_nothing_is_dropped(tmp_path):
    space = {
        "axes": {"backbone": ["a", "b", "c"], "strategy": ["frozen", "full"], "term": ["[]", "[l2sp]"]},
        "rungs": [
            {"name": "probe", "decides": ["backbone"], "alone": True, "set": {"strategy": "probe"}, "keep": 1},
            {"name": "whole"},
        ],
    }
    values = {"a": 0.1, "b": 0.3, "c": 0.2}
    runner = Runner(score=lambda keys: values[keys["backbone"]])
    race(tmp_path, runner, space).winner()
    assert [keys_of(job.overrides) for job in runner.jobs[:3]] == [
        {"backbone": name, "strategy": "probe", "test": "false"} for name in "abc"
    ]
    assert len(runner.jobs) == 3 + 4
    refused = Runner(score=lambda keys: "no head" if keys["strategy"] == "probe" else values[keys["backbone"]])
    said = []
    one = Race(read(space, "a test"), refused, RaceLog(tmp_path / "other"), 10, say=said.append)
    (tmp_path / "other").mkdir()
    assert one.winner().candidate.overrides["backbone"] == "b"
    assert said[0] == "race, probe: left out. no head."
    assert len(refused.jobs) == 3 + 12


def test_rungs_without_a_choice_are_left_out(tmp_path):
    runner = Runner()
    space = {**SPACE, "axes": {"strategy": ["full"], "optimizer.lr": ["1e-3"]}}
    race(tmp_path, runner, space).winner()
    assert len(runner.jobs) == 1


def test_several_seeds_count_by_their_mean(tmp_path):
    lucky = {"0": {"1e-4": 0.9, "1e-3": 0.8, "1e-2": 0.1}, "1": {"1e-4": 0.1, "1e-3": 0.8, "1e-2": 0.1}}
    space = {
        "axes": {"optimizer.lr": ["1e-4", "1e-3", "1e-2"]},
        "rungs": [{"name": "short", "epochs": 0.2, "seeds": 1, "keep": 2}, {"name": "whole"}],
    }
    runner = Runner(score=lambda keys: lucky[keys["seed"]][keys["optimizer.lr"]])
    winner = race(tmp_path, runner, space, seeds=["0", "1"]).winner()
    assert winner.candidate.overrides["optimizer.lr"] == "1e-3"
    assert [keys_of(job.overrides)["seed"] for job in runner.jobs] == ["0"] * 3 + ["0", "1"] * 2
    assert winner.error == pytest.approx(math.sqrt(0.8 * 0.2 / 100))


def measured(label, value, samples=100):
    from graft.race.space import Candidate

    candidate = Candidate((("x", option_of("x", label)),))
    return Measured(candidate, [Outcome(label, value, "val/target/acc", samples=samples)])


def test_what_must_go_on_does_and_close_calls_are_counted():
    found = [measured("a", 0.9), measured("b", 0.88), measured("c", 0.5), measured("d", 0.4)]
    costs = {one.candidate: 1.0 for one in found}
    decision = decide(Rung("short", keep=1, also={"x": "d"}), found, costs, math.inf)
    assert [one.candidate.label for one in decision.went_on] == ["x=a", "x=d"]
    plain = decide(Rung("short", keep=1), found, costs, math.inf)
    assert close_calls(plain) == 1  # b: the error of .9 over 100 samples is .03
    assert [one.candidate.label for one in plain.dropped] == ["x=b", "x=c", "x=d"]


def test_a_factor_multiplies_the_recipes_value():
    options = [option_of("optimizer.lr", "*0.2"), option_of("optimizer.lr", "1e-2")]
    assert [one.label for one in multiplied(options, {"optimizer.lr": 0.01})] == [
        "optimizer.lr=0.002",
        "optimizer.lr=1e-2",
    ]
    with pytest.raises(GraftError, match="which is auto: give numbers"):
        multiplied(options, {"optimizer.lr": "auto"})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "has the keys axes and rungs"),
        ({**SPACE, "axis": {}}, "`axis`: there is no such key"),
        ({**SPACE, "axes": {"strategy": "full"}}, "`axes.strategy=full`: must be a list"),
        ({**SPACE, "rungs": []}, "`rungs`: must be a list"),
        ({**SPACE, "rungs": [{"name": "short", "epochs": 0.2}]}, "the last rung must train as long"),
        ({**SPACE, "rungs": [{"name": "a", "epochs": 3}, {"name": "b"}]}, "`rungs[0].epochs=3`: must be a share"),
        ({**SPACE, "rungs": [{"name": "a", "keep": 1.5}, {"name": "b"}]}, "`rungs[0].keep=1.5`: must be how many"),
        ({**SPACE, "rungs": [{"name": "a", "decides": ["term"]}, {"name": "b"}]}, "no such axis; axes are strategy"),
        ({**SPACE, "rungs": [{"kep": 1, "name": "b"}]}, "`rungs[0].kep`: there is no such key"),
        ({**SPACE, "rungs": [{"name": "a", "alone": True}, {"name": "b"}]}, "true only beside `decides`"),
        ({**SPACE, "rungs": [{"keep": 1}]}, "every rung needs a name"),
    ],
)
def test_a_wrong_space_is_one_message(content, words):
    with pytest.raises(GraftError) as error:
        read(content, "mine.yaml")
    assert "mine.yaml" in str(error.value)
    assert words in str(error.value)
