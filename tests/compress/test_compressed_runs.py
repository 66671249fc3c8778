"""Whole runs with a compression: they resume bit for bit, say what they did, and leave a folder that predicts."""

import pytest
import torch
from lanes import slow

import graft
from graft.callbacks import checkpoints
from graft.compress.quantize import WEIGHT_LEVEL
from graft.errors import GraftError, Interrupted
from graft.runs.checkpoints import load
from graft.weights.files import weights_file
from tests.small_run import train_in

TINY = [
    *("backbone=cnn", "backbone.weights=source", "data.source.samples=120", "data.labels_per_class=4"),
    *("data.eval_batch_size=512", "pretrain.epochs=1", "training.epochs=3", "data.batch_size=20", "training.threads=1"),
    *("optimizer.lr=0.003", "trainer=cpu", "logger=csv", "strategy=full", "save.model=always"),
    *("allow=[tests]", "data.augment=light"),
]
COMPRESSIONS = {
    "before": ["compress=prune"],
    "prune": ["compress=prune", "compress.start_epoch=1", "compress.steps=2", "compress.importance=taylor"],
    "magnitude": ["compress=magnitude", "compress.every_steps=2", "compress.end=0.6"],
    "quantize": ["compress=quantize", "compress.start_epoch=1"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(tmp_path, cache):
    def run(*overrides, folder="run"):
        return train_in(tmp_path, *TINY, *overrides, folder=folder, cache=cache), tmp_path / folder

    return run


@pytest.fixture
def every_epoch_saved(monkeypatch):
    monkeypatch.setattr(checkpoints, "SHORTEST_S", 0.0)
    monkeypatch.setattr(checkpoints, "LARGEST_SHARE", 1e9)


def best(folder):
    """The model folder's network as the selected checkpoint has it."""
    return graft.load_run(folder, allow=["tests"])


def weights(folder, name="last"):
    return load(folder / "checkpoints" / f"{name}.ckpt")["state_dict"]


@pytest.mark.usefixtures("every_epoch_saved")
@pytest.mark.parametrize("name", ["prune", *slow("before", "magnitude", "quantize")])
@pytest.mark.parametrize("epoch", [1, *slow(2)])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(run, name, epoch):
    whole, folder = run(*COMPRESSIONS[name], folder="whole")
    stop = f"+callbacks.stop={{_target_: tests.test_run.StopAt, epoch: {epoch}, batch: 0}}"
    with pytest.raises(Interrupted):
        run(*COMPRESSIONS[name], stop, folder="stopped")
    resumed, other = run(*COMPRESSIONS[name], "resume=true", folder="stopped")
    assert resumed["metrics"] == whole["metrics"]
    assert resumed["compression"] == whole["compression"]
    assert best(other).backbone.feature_size == 128
    for kind in ("last", "best"):
        expected, found = weights(folder, kind), weights(other, kind)
        assert expected.keys() == found.keys()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())


@pytest.mark.slow
def test_a_pruned_model_opens_without_its_run_and_says_what_it_lost(run):
    results, folder = run("compress=prune", "compress.start_epoch=1")
    found = results["compression"]
    model = best(folder)
    kept = weights(folder, "best")
    assert found["backbone_parameters"][1] == sum(one.numel() for one in model.backbone.parameters())
    assert found["backbone_parameters"][1] < 0.6 * found["backbone_parameters"][0]
    assert model.backbone.network.conv1[0].out_channels == 16
    assert all(torch.equal(value, kept[f"backbone.{name}"]) for name, value in model.backbone.state_dict().items())
    assert results["selection"]["epoch"] >= 1, "before, it was whole"
    card = (folder / "model" / "README.md").read_text()
    assert f"compressed in training (`prune`): {found['note']}" in card
    with pytest.raises(GraftError, match=r"its network was pruned \(compress=prune\)"):
        weights_file(str(folder))


@pytest.mark.slow
def test_a_sparse_model_is_sparse_in_its_folder_and_under_an_average(run):
    results, folder = run(*COMPRESSIONS["magnitude"], "averaging=ema")
    layers = [one for one in best(folder).backbone.modules() if isinstance(one, torch.nn.Conv2d | torch.nn.Linear)]
    zeros = sum(int((one.weight == 0).sum()) for one in layers)
    assert zeros / sum(one.weight.numel() for one in layers) == results["compression"]["sparsity"]
    assert results["compression"]["sparsity"] == pytest.approx(0.8, abs=1e-3)


@pytest.mark.slow
def test_a_quantised_model_has_rounded_weights_and_plain_layers(run):
    results, folder = run(*COMPRESSIONS["quantize"])
    layer = best(folder).backbone.network.conv2[0]
    levels = layer.weight.flatten(1) / (layer.weight.flatten(1).abs().amax(1, keepdim=True) / WEIGHT_LEVEL)
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert (folder / "checkpoints" / "compressed.pt").is_file()
    assert results["compression"]["layers"] == 4
    assert results["selection"]["epoch"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["frozen", "lp_ft", "gradual", "bitfit", "freeze_until", "scratch"])
@pytest.mark.parametrize("name", ["before", "prune", "quantize"])
def test_every_strategy_trains_compressed(run, strategy, name):
    results, folder = run(*COMPRESSIONS[name], f"strategy={strategy}")
    assert results["status"] == "done"
    assert best(folder).backbone.feature_size == 128


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_folds_are_compressed_as_the_run_is(run, name):
    results, _ = run(*COMPRESSIONS[name], "selection=budget")
    assert results["status"] == "done"


@pytest.mark.slow
@pytest.mark.parametrize("clip", [0.02, None])
def test_weights_are_clipped_after_each_step_and_only_those(run, clip):
    _, folder = run("training.epochs=1", *([] if clip is None else [f"training.weight_clip={clip}"]), "head=linear")
    state = weights(folder)
    largest = max(float(value.abs().max()) for name, value in state.items() if name.endswith("weight"))
    assert (largest <= (clip or 0)) == (clip is not None)
    assert max(float(value.abs().max()) for name, value in state.items() if name.endswith("bias")) > 0.02


@pytest.mark.slow
def test_frozen_weights_are_not_clipped(run):
    _, folder = run("training.epochs=1", "training.weight_clip=0.02", "strategy=frozen")
    state = weights(folder)
    assert float(state["heads.shared.linear.weight"].abs().max()) <= 0.02
    assert float(state["backbone.network.conv1.0.weight"].abs().max()) > 0.02


@pytest.mark.slow
@pytest.mark.usefixtures("every_epoch_saved")
def test_a_checkpoint_goes_on_with_its_own_compression_only(run):
    run("training.epochs=1")
    with pytest.raises(GraftError, match="the checkpoint was trained with compress=none"):
        run("training.epochs=2", "compress=prune", "resume=true")
