import pickle

import pytest
import torch

from graft.cache import rows as rows_module
from graft.cache.rows import DATA, MappedRows, RowWriter, write_rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.int64])
def test_rows_come_back_as_they_were_written(tmp_path, dtype):
    values = (torch.randn(25, 3, 4) * 50).to(dtype)
    write_rows(tmp_path, values.split(10))
    rows = MappedRows(tmp_path)
    indices = torch.tensor([24, 0, 7, 7])
    assert len(rows) == 25
    assert rows.shape == values.shape
    assert torch.equal(rows[indices], values[indices])
    assert torch.equal(rows[indices.tolist()], values[indices])
    assert torch.equal(rows[5:20], values[5:20])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_go_to_their_places(tmp_path, dtype):
    values, order = torch.randn(25, 3, 4).to(dtype), torch.tensor([*range(20, 25), *torch.randperm(20).tolist()])
    with RowWriter(tmp_path) as writer:
        for indices in order.split(10):
            writer.append(values[indices], indices)
    assert torch.equal(MappedRows(tmp_path)[:], values)


def test_maps_keep_their_memory_format(tmp_path):
    maps = torch.randn(6, 8, 5, 4).to(memory_format=torch.channels_last)
    write_rows(tmp_path, maps.split(4))
    rows = MappedRows(tmp_path)
    assert rows.shape == maps.shape
    assert torch.equal(rows[torch.arange(6)], maps)
    assert rows[torch.tensor([2, 1])].is_contiguous(memory_format=torch.channels_last)


def test_what_was_read_is_given_back_and_stays_right(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "RESIDENT", 2**17)
    values = torch.randn(1000, 64)
    write_rows(tmp_path, [values])
    rows = MappedRows(tmp_path)
    for _ in range(20):
        indices = torch.randint(1000, (16,))
        assert torch.equal(rows[indices], values[indices])


def test_a_worker_process_maps_the_file_instead_of_copying_it(tmp_path):
    values = torch.randn(1000, 64)
    write_rows(tmp_path, [values])
    pickled = pickle.dumps(MappedRows(tmp_path))
    assert len(pickled) < 1000
    assert torch.equal(pickle.loads(pickled)[3:9], values[3:9])


def test_a_file_cut_short_is_refused(tmp_path):
    write_rows(tmp_path, [torch.randn(10, 4)])
    with (tmp_path / DATA).open("r+b") as file:
        file.truncate(20)
    with pytest.raises(ValueError, match=r"rows\.bin"):
        MappedRows(tmp_path)


@pytest.mark.parametrize("dtype", ["load", "hub", "nothing", "Tensor"])
def test_a_description_names_a_dtype_and_nothing_else_of_torch(tmp_path, dtype):
    write_rows(tmp_path, [torch.randn(10, 4)])
    meta = tmp_path / rows_module.META
    meta.write_text(meta.read_text().replace("float32", dtype))
    with pytest.raises(ValueError, match=f"dtype={dtype}"):
        MappedRows(tmp_path)
