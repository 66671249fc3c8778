"""graft.train and graft.assemble, which leave what the command line leaves."""

import os
import signal
from pathlib import Path

import pytest
import yaml
from lanes import slow

import graft
from graft.cli.job import restored_process
from graft.cli.notebook import composed
from graft.errors import Diverged, GraftError
from graft.runs.folder import CONFIG, DONE, ERROR, OVERRIDES, RECORD, RESULTS

SMALL = {
    "backbone": "lenet",
    "data.source.samples": 300,
    "pretrain.epochs": 1,
    "training.epochs": 1,
    "training.threads": 1,
    "logger": "csv",
    "baselines": "none",
}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    return tmp_path_factory.mktemp("notebook")


def values(where, name, **more):
    return {**SMALL, "paths.run_dir": where / name, "paths.cache_dir": where / "cache", **more}


@pytest.fixture(scope="module")
def first(where):
    """One run, with the environment and the Ctrl-C handler from before and after."""
    before = dict(os.environ), signal.getsignal(signal.SIGINT)
    results = graft.train("experiment=resnet_ft", **values(where, "first"))
    return results, before, (dict(os.environ), signal.getsignal(signal.SIGINT))


def test_train_leaves_a_whole_run_folder_and_the_process_as_it_was(first, where):
    results, before, after = first
    assert {CONFIG, OVERRIDES, DONE, RECORD, RESULTS, "checkpoints"} <= {p.name for p in (where / "first").iterdir()}
    assert "test/target/acc" in results["metrics"]
    assert before == after


def test_a_finished_folder_is_not_run_again(first, where):
    written = (where / "first" / RESULTS).stat().st_mtime_ns
    results = graft.train("experiment=resnet_ft", **values(where, "first"))
    assert results["metrics"] == first[0]["metrics"]
    assert (where / "first" / RESULTS).stat().st_mtime_ns == written
    with pytest.raises(GraftError, match=r"another configuration.*seed: "):
        graft.train("experiment=resnet_ft", **values(where, "first", seed=5))


def test_a_second_run_takes_the_pretrained_backbone_and_a_mapping_is_a_whole_config(first, where, capsys):
    config = yaml.safe_load((where / "first" / CONFIG).read_text())
    results = graft.train(config, **{"paths.run_dir": str(where / "second")})
    assert "Pretraining on the source" not in capsys.readouterr().out
    assert results["metrics"] == first[0]["metrics"]
    assert (where / "second" / DONE).is_file()


@pytest.mark.parametrize("run_dir", [None, *slow("???", "${hydra:runtime.output_dir}")])
def test_a_whole_config_without_a_run_folder_gets_a_new_one(where, monkeypatch, run_dir):
    built = graft.assemble("experiment=resnet_ft", **values(where, "none"))
    settings = {**built.config, "paths": {"root": str(where), "run_dir": run_dir}}
    again = graft.assemble(settings, **{"paths.cache_dir": str(where / "cache")})
    folder = Path(again.config["paths"]["run_dir"])
    assert folder.parent == where / "logs" / "resnet_ft" / "runs"
    assert not folder.exists()
    del settings["paths"]["run_dir"]
    assert Path(graft.assemble(settings).config["paths"]["run_dir"]).parent == folder.parent


def test_another_working_folder_shares_the_clones_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("GRAFT_ROOT", "GRAFT_CACHE", "GRAFT_DATA"):
        monkeypatch.delenv(name, raising=False)
    clone = Path(__file__).parents[1]
    with restored_process(), composed(("experiment=resnet_ft",), {}) as (cfg, _, _):
        assert cfg.paths.root == str(clone)
        assert cfg.paths.cache_dir == str(clone / ".cache" / "graft")
        assert cfg.paths.data_dir == str(clone / "data")
        assert Path(cfg.paths.run_dir).parent == clone / "logs" / "resnet_ft" / "runs"


def test_mistakes_are_listed_and_leave_no_folder(where):
    with pytest.raises(GraftError) as caught:
        graft.train("experiment=resnet_ft", **values(where, "wrong", seed="abc", **{"training.epochs": -1}))
    assert "seed" in str(caught.value)
    assert "training.epochs" in str(caught.value)
    assert not (where / "wrong").exists()
    with pytest.raises(GraftError, match="one mapping that is a whole"):
        graft.train({"seed": 1})


def test_a_failed_run_leaves_its_error(where):
    (where / "broken.pt").write_bytes(b"no weights")
    with pytest.raises(GraftError) as caught:
        graft.train("experiment=resnet_ft", **values(where, "failed", **{"backbone.weights": where / "broken.pt"}))
    assert (where / "failed" / ERROR).read_text().strip() == str(caught.value).strip()
    assert not (where / "failed" / DONE).exists()


@pytest.mark.slow
def test_a_diverged_run_is_done_and_not_run_again(where):
    more = {"optimizer.lr": 1e30}
    for again in ("loss is nan", "Diverged before"):
        with pytest.raises(Diverged, match=again):
            graft.train("experiment=resnet_ft", **values(where, "diverged", **more))
        assert (where / "diverged" / DONE).read_text().strip() == "diverged"


def test_assemble_takes_nested_values(where):
    built = graft.assemble("experiment=resnet_ft", **values(where, "none", **{"data.test_shifts": ["blur"]}))
    assert built.config["data"]["test_shifts"] == ["blur"]
    assert not (where / "none").exists()


@pytest.mark.slow
def test_the_image_size_of_the_hyperrule_reaches_the_backbone(where):
    more = {"strategy": "bit_hyperrule", "backbone.size": None, "data.image_size": None}
    built = graft.assemble("experiment=resnet_ft", **values(where, "none", **more))
    assert built.config["backbone"]["size"] == 128
    assert built.module.backbone.input_spec.size == (128, 128)


@pytest.mark.usefixtures("own_package")
def test_a_users_own_part_is_checked_as_its_file_is_now(where, tmp_path, monkeypatch):
    part, own = tmp_path / "mypkg.py", {"optimizer._target_": "mypkg.Mine", "allow": ["mypkg"], "optimizer.options": {}}
    monkeypatch.syspath_prepend(tmp_path)
    part.write_text("import torch\n\n\nclass Other(torch.optim.SGD):\n    pass\n")
    with pytest.raises(GraftError, match="there is no `Mine` in `mypkg`"):
        graft.assemble("experiment=resnet_ft", **values(where, "none", **own))
    part.write_text(part.read_text().replace("Other", "Mine"))
    assert graft.assemble("experiment=resnet_ft", **values(where, "none", **own)).config["allow"] == ["mypkg"]
