"""Files are written whole or not at all, and a disk that takes no more is one line."""

import errno
import resource
from pathlib import Path

import pytest
import torch

from graft.cli.job import stored_config
from graft.errors import GraftError
from graft.files import disk_message, user_path, write_whole
from graft.loggers.metrics_file import MetricsFile
from graft.runs import checkpoints, record
from graft.training.trainer import CheckpointFiles
from graft.weights.files import damage_of
from graft.weights.loading import read_tensors


@pytest.fixture
def full_disk():
    """No file of this process grows beyond 1,000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_was_there_stays_where_the_disk_is_full(tmp_path, full_disk):
    file = tmp_path / "results.json"
    write_whole(file, "before")
    with pytest.raises(OSError, match=r"results\.json") as error:
        write_whole(file, "x" * 2000)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    message = disk_message(error.value, tmp_path)
    assert message is not None
    assert message.startswith(f"{tmp_path} ({file}) cannot be written: File too large (Errno {errno.EFBIG}).")


def test_a_checkpoint_stays_whole_where_the_disk_is_full(tmp_path, full_disk):
    with pytest.raises(OSError, match=r"last\.ckpt") as error:
        CheckpointFiles().save_checkpoint({"a": torch.zeros(5000)}, tmp_path / "last.ckpt")
    assert error.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())


def test_metrics_are_repaired_where_a_run_goes_on(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,loss\n0,1,0.5\n0,2,0.4\n0,3")
    file = MetricsFile(tmp_path)
    file.log_metrics({"loss": 0.1}, step=5)
    file.close()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["epoch,step,loss", "0,1,0.5", "0,2,0.4", ",5,0.1"]


@pytest.mark.parametrize("content", [b"", b"\0" * 90, b"\xff\xfe\x80,", b"x" * 300_000, b'"' + b"x\n" * 300_000])
def test_metrics_that_are_no_table_any_more_are_begun_again(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    file = MetricsFile(tmp_path)
    file.log_metrics({"loss": 0.1}, step=5)
    file.close()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["epoch,step,loss", ",5,0.1"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"\0" * 9, b"[1]", b"[" * 9999, b'{"format": "x"}'])
def test_torn_results_are_named(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(GraftError, match=r"results\.json cannot be read: .* Delete the folder"):
        record.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a: [1", b"\xff\xfe", b"\0" * 9, b"words", b"[" * 9999])
def test_a_torn_config_is_named(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(GraftError, match=r"config\.yaml (cannot be read|is torn): "):
        stored_config(tmp_path)


@pytest.mark.parametrize(("name", "advice"), [("best.ckpt", "Delete it"), ("last.ckpt", "backbone.weights=")])
@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04"])
def test_a_torn_checkpoint_is_named(tmp_path, name, advice, content):
    (tmp_path / "best.ckpt").write_bytes(b"")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GraftError, match=rf"{name} cannot be read .*{advice}"):
        checkpoints.load(tmp_path / name)


def zeros_within(content: bytes) -> bytes:
    """As a disk leaves it that lost power: of the right length, a block of it never written."""
    middle = len(content) // 2
    return content[:middle] + bytes(100) + content[middle + 100 :]


@pytest.mark.parametrize("tear", [lambda b: b"", lambda b: b[:-100], lambda b: b"garbage" * 99, zeros_within])
def test_a_torn_last_checkpoint_is_noticed_and_the_one_before_is_read(tmp_path, capsys, tear):
    files = CheckpointFiles()
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for step in (1.0, 2.0):
        files.save_checkpoint({"a": torch.full((999,), step)}, last)
    assert not torch.equal(torch.load(last)["a"], torch.load(previous)["a"])
    last.write_bytes(tear(last.read_bytes()))
    found, content = checkpoints.readable(last, or_previous=True)
    assert (found, content["a"][0]) == (previous, 1)
    assert len(capsys.readouterr().out.splitlines()) == 1
    with pytest.raises(GraftError, match=rf"last\.ckpt cannot be read .*resume={previous}"):
        checkpoints.readable(last, or_previous=False)
    CheckpointFiles().save_checkpoint({"a": torch.zeros(1)}, last)  # of a run that went on: nothing torn is kept
    assert checkpoints.readable(previous, or_previous=False)[1]["a"][0] == 1
    previous.write_bytes(b"")
    last.write_bytes(b"")
    with pytest.raises(GraftError, match=r"last\.ckpt cannot be read"):
        checkpoints.readable(last, or_previous=True)


def with_flag(content: bytes) -> bytes:
    """With a bit of the last entry of the archive's directory turned, by which its member counts as encrypted."""
    place = content.rfind(b"PK\x01\x02") + 8
    return content[:place] + bytes([content[place] | 1]) + content[place + 1 :]


@pytest.mark.parametrize("tear", [zeros_within, with_flag])
def test_checksums_of_checkpoints_and_of_weights_are_looked_at_alike(tmp_path, tear):
    file = tmp_path / "last.ckpt"
    torch.save({"a": torch.arange(999.0)}, file)
    assert damage_of(file) is None
    file.write_bytes(tear(file.read_bytes()))
    assert damage_of(file) is not None
    with pytest.raises(GraftError, match=r"last\.ckpt cannot be read \("):
        checkpoints.load_whole(file)
    with pytest.raises(GraftError, match=r"last\.ckpt is not a readable file of weights"):
        read_tensors(file)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(999.0)}, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_tensors(file)["a"][7] == checkpoints.load_whole(file)["a"][7] == 7


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "DONE"))
    assert disk_message(error, tmp_path) == (
        f"{tmp_path} ({tmp_path / 'DONE'}) cannot be written: Permission denied (Errno {errno.EACCES}). Make it "
        "writable, or choose another folder."
    )


def test_another_error_is_no_disks():
    assert disk_message(FileNotFoundError(errno.ENOENT, "No such file"), Path("run")) is None


def test_a_home_that_does_not_exist():
    assert user_path("~nobody_of_that_name/photos") == Path("~nobody_of_that_name/photos")
