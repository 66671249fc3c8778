import pickle

import pytest
import torch

from graft.cache.ragged import LENGTHS, VALUES, MappedTokens, MappedWaveforms, write_sequences


@pytest.mark.parametrize("kind", [MappedTokens, MappedWaveforms])
def test_sequences_come_back_as_copies_of_their_type(tmp_path, kind):
    sequences = [torch.arange(length).to(kind.dtype) for length in (3, 0, 5)]
    write_sequences(tmp_path, iter(sequences))
    rows = pickle.loads(pickle.dumps(kind(tmp_path)))
    found = rows[torch.tensor([2, 1, 0, 0])]
    for one, other in zip(found, [sequences[2], sequences[1], sequences[0], sequences[0]], strict=True):
        assert one.dtype == kind.dtype
        assert torch.equal(one, other)
    found[2] += 1
    assert torch.equal(rows[torch.tensor([0])][0], sequences[0])
    assert rows.lengths.tolist() == [3, 0, 5]


def test_nothing_but_empty_sequences(tmp_path):
    write_sequences(tmp_path, [torch.empty(0), torch.empty(0)])
    assert [len(row) for row in MappedWaveforms(tmp_path)[torch.tensor([0, 1])]] == [0, 0]


@pytest.mark.parametrize("file", [VALUES, LENGTHS])
def test_half_a_file_is_refused(tmp_path, file):
    write_sequences(tmp_path, [torch.ones(100)])
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: len(content) // 2])
    with pytest.raises((OSError, ValueError)):
        MappedWaveforms(tmp_path)
