"""`graft <verb>`: the list of verbs, show and clean, in processes of their own where imports matter."""

import subprocess
import sys

import pytest

import graft
from graft.cli.main import main
from graft.runs.folder import DONE, RECORD, RunFolder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run."""
    where = tmp_path_factory.mktemp("commands")
    small = {"backbone": "lenet", "data.source.samples": 300, "pretrain.epochs": 1, "training.epochs": 1}
    folders = {"paths.run_dir": where / "run", "paths.cache_dir": where / "cache"}
    graft.train("experiment=resnet_ft", **small, **folders, logger="csv", baselines="none", **{"training.threads": 1})
    return where / "run"


@pytest.mark.parametrize(
    ("words", "code"),
    [([], 0), (["--help"], 0), (["nothing"], 2), (["train", "--help"], 0), (["train", "seed=abc"], 2), (["soup"], 2)],
)
def test_what_needs_no_torch_does_not_import_it(words, code):
    script = "import sys; from graft.cli.main import main; code = main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{script}; sys.exit(code)", *words], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stdout.splitlines()[-1] == "False"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["show", "clean"])
def test_a_verb_without_its_folder_says_what_it_takes(verb, capsys, tmp_path):
    assert main([verb]) == 2
    assert f"graft {verb} <folder" in capsys.readouterr().err
    assert main([verb, "--help"]) == 0
    assert f"graft {verb} <folder" in capsys.readouterr().out
    assert main([verb, str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_show_prints_a_run_and_refuses_other_folders(run, capsys, tmp_path):
    assert main(["show", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "resnet_ft: done" in shown
    assert "auroc" in shown
    assert main(["show", str(tmp_path)]) == 2
    assert "neither a run nor a sweep" in capsys.readouterr().err


def test_clean_shows_first_and_removes_only_what_the_record_names(run, capsys):
    last = run / "checkpoints" / "last.ckpt"
    strange = run / "checkpoints" / "mine.ckpt"
    strange.write_bytes(b"mine")
    before = {path for path in run.rglob("*") if path.is_file()}

    assert main(["clean", str(run.parent)]) == 0  # a folder of runs
    shown = capsys.readouterr().out
    assert str(last) in shown
    assert "in 1 file may go" in shown
    assert {path for path in run.rglob("*") if path.is_file()} == before

    (run / DONE).rename(run / "kept")
    assert main(["clean", str(run), "--yes"]) == 0
    assert last.exists()  # not finished: resume=true needs it
    (run / "kept").rename(run / DONE)

    worker = RunFolder(run)
    worker.take()
    try:
        script = "import sys; from graft.cli.main import main; sys.exit(main(sys.argv[1:]))"
        subprocess.run([sys.executable, "-c", script, "clean", str(run), "--yes"], check=True, capture_output=True)
        assert last.exists()  # in work
    finally:
        worker.release()

    record = (run / RECORD).read_text()
    (run / RECORD).write_text(record.replace('"checkpoints/last.ckpt"', '"checkpoints/other.ckpt"'))
    assert main(["clean", str(run), "--yes"]) == 0
    assert last.exists()  # the record does not name it
    (run / RECORD).write_text(record)

    assert main(["clean", str(run), "--yes"]) == 0
    assert "1 file removed" in capsys.readouterr().out
    assert {path for path in run.rglob("*") if path.is_file()} == before - {last}
