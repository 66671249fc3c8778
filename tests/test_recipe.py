"""Which jobs of a sweep make a soup, and the config that its run gets from them."""

import json

import pytest
import yaml

from graft.errors import GraftError
from graft.runs import ingredients as recipe

CONFIG = {
    "name": "resnet_ft",
    "seed": 0,
    "data": {"batch_size": 64, "subset_seed": 0, "labels_per_class": 10, "split_seed": 0, "source": {"samples": 10}},
    "backbone": {"name": "resnet18", "weights": "source"},
    "head": {"sharing": "auto"},
    "task": {"label_smoothing": 0.0},
    "source_task": None,
    "bn": "joint",
    "selection": {"_target_": "graft.selection.target_val.TargetValidation"},
    "optimizer": {"lr": 0.1},
    "term": {"l2sp": {"weight": 1}},
    "training": {"epochs": 3, "threads": 1, "wise_ft_alphas": [0.5]},
    "save": {"model": "always"},
    "report": {"slices": ["length"]},
    "logger": {"csv": {}},
    "paths": {"run_dir": "job"},
    "trainer": {"accelerator": "cpu"},
}
RESULTS = {
    "format": 1,
    "data": {"target": {"fingerprint": "abc"}},
    "weights": {"source": "source (cached)", "folder": "/cache/pretrained/1234"},
    "selection": {"monitor": "val/target/acc", "value": 0.5},
}
SOUP = {**CONFIG, "name": "soup", "data": {}, "training": {"threads": 2}, "logger": {"wandb": {}}, "callbacks": {}} | {
    "allow": [],
    "save": {"model": "best", "neighbours": False},
    "report": {"slices": [], "proxy_a_distance": "auto"},
    **{key: None for key in ("tags", "notes", "resume", "soup")},
}


def changed(mapping, dotted):
    """The mapping with other values at dotted keys."""
    copied = json.loads(json.dumps(mapping))
    for key, value in dotted.items():
        *above, last = key.split(".")
        holder = copied
        for part in above:
            holder = holder[part]
        holder[last] = value
    return copied


@pytest.fixture
def jobs(tmp_path):
    def write(*configs, results=None, done=True, error=None):
        for number, dotted in enumerate(configs):
            folder = tmp_path / f"job{number}"
            folder.mkdir()
            (folder / "config.yaml").write_text(yaml.safe_dump(changed(CONFIG, dotted)))
            (folder / "overrides.yaml").write_text(
                yaml.safe_dump([f"+job={number}", *(f"{k}={v}" for k, v in dotted.items())])
            )
            (folder / "results.json").write_text(json.dumps(changed(RESULTS, (results or {}).get(number, {}))))
            if number or done:
                (folder / "DONE").touch()
            if error and number == 0:
                (folder / "error.txt").write_text(error)
        return tmp_path

    return write


def test_jobs_that_differ_in_how_they_train_make_a_soup(jobs):
    free = {"optimizer.lr": 0.2, "seed": 1, "data.batch_size": 8, "task.label_smoothing": 0.1, "data.subset_seed": 1}
    folder = jobs({}, free, {"training.epochs": 9})
    found = recipe.read(folder)
    assert [one.folder.name for one in found] == ["job0", "job1", "job2"]
    assert found[2].name == "job2 job=2 training.epochs=9"
    assert recipe.label_subsets(found) == 2


def test_without_a_budget_all_jobs_see_the_same_labels(jobs):
    folder = jobs(*({"data.labels_per_class": None, "data.subset_seed": seed} for seed in (0, 1)))
    assert recipe.label_subsets(recipe.read(folder)) == 1


def test_the_soups_config_is_the_jobs_but_for_what_belongs_to_its_own_run(jobs):
    folder = jobs({"seed": 3}, {"seed": 4})
    own = SOUP | {"soup": str(folder), "paths": {"run_dir": "here"}}
    made = recipe.settings(own)
    assert made["data"] == CONFIG["data"]
    assert made["seed"] == 3
    assert (made["name"], made["soup"], made["paths"], made["logger"]) == (
        "soup",
        own["soup"],
        own["paths"],
        own["logger"],
    )
    assert made["training"] == {"epochs": 3, "threads": 2, "wise_ft_alphas": None}
    assert made["term"] == {}
    assert made["save"] == {"model": "always", "neighbours": False}  # which an older Graft did not have
    assert made["report"] == {"slices": ["length"], "proxy_a_distance": "auto"}
    assert recipe.settings(made) == made


def test_what_a_job_searched_for_is_not_searched_again(jobs):
    found = {"tuning": {"lr": {"value": 0.02}, "batch_size": {"value": 16}}}
    auto = {"optimizer.lr": "auto", "data.batch_size": "auto"}
    made = recipe.settings(SOUP | {"soup": str(jobs(auto, auto, results={0: found, 1: found}))})
    assert (made["optimizer"]["lr"], made["data"]["batch_size"]) == (0.02, 16)


@pytest.mark.parametrize(
    ("different", "results", "expected"),
    [
        ({"backbone.name": "vgg16"}, {}, r"backbone\.name: resnet18 \(job0\), vgg16 \(job1\)"),
        ({"data.split_seed": 5, "bn": "separate"}, {}, r"data\.split_seed: 0 .* 5 .*; bn: joint"),
        ({"data.source.samples": 5}, {}, r"data\.source\.samples: 10 \(job0\), 5 \(job1\)"),
        ({}, {"data.target.fingerprint": "xyz"}, r"content of data\.target: abc .* xyz"),
        ({}, {"weights": None}, r"pretrained weights: source \(1234\) \(job0\), none \(job1\)"),
        ({}, {"weights.folder": "/cache/pretrained/77"}, r"pretrained weights: .*1234.*77"),
    ],
)
def test_jobs_of_another_network_task_or_start_are_refused_with_what_differs(jobs, different, results, expected):
    folder = jobs({}, different, results={1: results})
    with pytest.raises(GraftError, match=expected):
        recipe.read(folder)


def test_the_same_pretraining_in_another_cache_is_the_same(jobs):
    folder = jobs(
        {}, {}, results={1: {"weights.folder": "/elsewhere/1234", "weights.source": "source (pretrained in 9 s)"}}
    )
    assert len(recipe.read(folder)) == 2


def test_networks_from_random_weights_make_no_soup(jobs):
    with pytest.raises(GraftError, match="started from random weights"):
        recipe.read(jobs({}, {}, results={0: {"weights": None}, 1: {"weights": None}}))


def test_jobs_that_selected_nothing_make_no_soup(jobs):
    last = {"selection._target_": "graft.selection.last.Last"}
    with pytest.raises(GraftError, match="selection=last, so there is no metric"):
        recipe.read(jobs(last, last))


def test_a_folder_without_jobs_is_told(tmp_path, jobs):
    with pytest.raises(GraftError, match=r"no sweep's folder, there are no jobs in it\. Give the folder"):
        recipe.read(tmp_path)
    with pytest.raises(GraftError, match="no sweep's folder"):
        recipe.read(tmp_path / "missing")
    jobs({})
    with pytest.raises(GraftError, match="It is one run's own folder"):
        recipe.read(tmp_path / "job0")
    with pytest.raises(GraftError, match="one job only"):
        recipe.read(tmp_path)


@pytest.mark.parametrize(("error", "state"), [(None, "not finished"), ("ValueError: no", "failed")])
def test_jobs_that_are_not_done_are_named(jobs, error, state):
    with pytest.raises(GraftError, match=rf"1 of 2 jobs are not done: job0 \({state}\).*hydra\.sweep\.dir="):
        recipe.read(jobs({}, {}, done=False, error=error))


def test_what_a_soup_cannot_change_is_refused():
    recipe.check_overrides(["soup=x", "logger=csv", "+trainer.devices=2", "training.threads=1", "name=a", "notes=b"])
    with pytest.raises(GraftError, match=r"`optimizer\.lr`, `training\.epochs` with `soup=`"):
        recipe.check_overrides(["soup=x", "optimizer.lr=1", "training.epochs=3"])
