"""`averaging=greedy_soup`: the best epochs are kept, their mean is tested, and a resumed run makes the same one."""

import json

import pytest
import torch
from lanes import slow

from graft.callbacks.checkpoints import Checkpoints
from graft.errors import Interrupted
from tests.small_run import train_in

SMALL = [
    *("backbone=timm", "backbone.name=test_resnet", "backbone.weights=null", "strategy=scratch"),
    *(
        "averaging=greedy_soup",
        "training.epochs=6",
        "training.threads=1",
        "data.labels_per_class=4",
        "data.image_size=16",
    ),
    *(
        "data.batch_size=16",
        "optimizer.lr=0.03",
        "scheduler=constant",
        "trainer=cpu",
        "logger=csv",
        "allow=[test_run]",
        "data.source=null",
    ),
]


def saved(folder, name="last.ckpt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def kept(folder):
    """The epochs in a run's last checkpoint: number -> content."""
    (state,) = (one for one in saved(folder)["callbacks"].values() if "top" in one)
    return {one["epoch"]: one for one in state["top"]}


def in_soup(folder):
    parts = saved(folder, "soup.pt")
    return {f"{part}.{name}": value for part in parts for name, value in parts[part].items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return train_in(root, *SMALL), root / "run"


def test_the_mean_of_the_members_is_tested_with_statistics_of_its_own(whole):
    results, folder = whole
    soup, top, mixed = results["soup"], kept(folder), in_soup(folder)
    assert len(top) == 3
    assert len(soup["epochs"]) > 1, "one member alone shows nothing"
    members = [top[epoch]["state_dict"] for epoch in soup["epochs"]]
    means = {name: torch.stack([one[name] for one in members]).double().mean(0) for name in mixed}
    for name, value in mixed.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value.double(), means[name], rtol=1e-5, atol=1e-7)
    moved = [
        name for name in mixed if "running" in name and not torch.allclose(mixed[name].double(), means[name], 0.01)
    ]
    assert len(moved) > 5


def test_the_record_says_what_went_in_and_the_soup_is_not_below_its_best_epoch(whole):
    results, folder = whole
    soup, top = results["soup"], kept(folder)
    assert soup["ingredients"] == {f"epoch {n + 1}": one["metrics"]["val/target/acc"] for n, one in top.items()}
    assert soup["members"][0] == next(iter(soup["ingredients"]))
    assert sorted(soup["members"]) == [f"epoch {epoch + 1}" for epoch in soup["epochs"]]
    assert soup["greedy"] >= max(soup["ingredients"].values())
    assert results["selection"]["value"] == soup["greedy"] == results["metrics"]["val/target/acc"]
    assert results["selection"]["epoch"] is None
    assert results["averaging"] == "greedy_soup"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["epoch: 3, batch: 1", *slow("epoch: 1, batch: 0")])
def test_a_resumed_run_makes_the_soup_of_the_uninterrupted_one_bit_for_bit(whole, tmp_path, where):
    with pytest.raises(Interrupted):
        train_in(tmp_path, *SMALL, f"+callbacks.stop={{_target_: test_run.StopAt, {where}}}")
    results = train_in(tmp_path, *SMALL, "resume=true")
    assert results["soup"] == whole[0]["soup"]
    assert results["metrics"] == json.loads((whole[1] / "results.json").read_text())["metrics"]
    expected = in_soup(whole[1])
    assert all(torch.equal(value, expected[name]) for name, value in in_soup(tmp_path / "run").items())


def test_the_best_epochs_are_kept_and_of_equally_good_ones_the_earlier(tmp_path):
    checkpoints = Checkpoints(tmp_path, "val/target/acc", top_k=2)
    for epoch, value in enumerate([0.5, 0.7, 0.6, 0.7, float("nan")]):
        checkpoints._keep_top({"epoch": epoch, "metrics": {"val/target/acc": value}})
    assert [one["epoch"] for one in checkpoints.top] == [1, 3]
    lower = Checkpoints(tmp_path, "val/target/loss", higher_is_better=False, top_k=2)
    for epoch, value in enumerate([0.5, 0.7, 0.6]):
        lower._keep_top({"epoch": epoch, "metrics": {"val/target/loss": value}})
    assert [one["epoch"] for one in lower.top] == [0, 2]
