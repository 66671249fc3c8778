import numpy as np
import pytest
import torch

from graft.backbones.sequence import SequenceBackbone
from graft.data.samples import rows_of
from graft.data.sources.digits import DigitRows
from graft.data.sources.sequence_arrays import SequenceArrays
from graft.errors import GraftError


@pytest.fixture
def archive(tmp_path):
    """An npz of 40 sequences of 3 values in up to 5 steps, one set; some arrays in the place of its own."""
    random = np.random.default_rng(0)
    arrays = {
        "sequences": random.normal(7, 3, (40, 5, 3)),
        "lengths": random.integers(1, 6, 40),
        "labels": np.arange(40) % 2,
    }
    arrays["sequences"][:, :, 2] = 4

    def archive(without=(), **changes):
        content = {name: array for name, array in {**arrays, **changes}.items() if name not in without}
        np.savez(tmp_path / "readings.npz", **content)
        return str(tmp_path / "readings.npz"), {name: array.copy() for name, array in content.items()}

    return archive


def test_each_channel_is_standardised_by_the_steps_of_training_sequences(archive):
    file, _ = archive()
    data = SequenceArrays(file).load(0)
    assert (data.modality, data.backbone_arguments) == ("sequence", {"input_size": 3})
    train = rows_of(data.train)
    known = train.values[train.mask.bool()]
    torch.testing.assert_close(known.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(known.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    assert (train.values[~train.mask.bool()] == 0).all()
    assert rows_of(data.test).values.abs().max() < 5
    assert known[:, 2].abs().max() == 0  # constant in training


def test_what_lies_behind_an_end_changes_nothing(archive):
    file, arrays = archive()
    first = SequenceArrays(file).load(0)
    behind = np.arange(5) >= arrays["lengths"][:, None]
    arrays["sequences"][behind] = np.nan
    second = SequenceArrays(archive(**arrays)[0]).load(0)
    assert first.fingerprint == second.fingerprint
    assert torch.equal(rows_of(first.train).values, rows_of(second.train).values)


def test_without_lengths_every_step_counts(archive):
    file, _ = archive(without=["lengths"])
    assert (rows_of(SequenceArrays(file).load(0).train).lengths == 5).all()


def test_a_batch_is_as_long_as_its_longest_sequence(archive):
    file, _ = archive()
    rows = rows_of(SequenceArrays(file).load(0).train)
    short = (rows.lengths <= 2).nonzero().flatten()
    fields = SequenceBackbone("lstm", 3).input_spec.transform().collate(rows[short])
    assert fields["values"].shape == (len(short), 2, 3)
    assert fields["mask"].sum(1).tolist() == rows.lengths[short].tolist()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a["sequences"].__setitem__((3, 0, 0), np.inf), r"sequences\[3\]: a value is NaN or infinite"),
        (lambda a: a["lengths"].__setitem__(3, 0), r"sequences\[3\]: its length is 0, of 1 to 5 steps"),
        (lambda a: a["lengths"].__setitem__(3, 6), r"sequences\[3\]: its length is 6, of 1 to 5 steps"),
        (lambda a: a["labels"].__setitem__(3, -1), r"sequences\[3\]: its label '-1' is not one of the classes: 0, 1"),
    ],
)
def test_a_bad_sequence_is_named_or_left_out_and_counted(archive, change, said):
    _, arrays = archive()
    change(arrays)
    file, _ = archive(**arrays)
    with pytest.raises(GraftError, match=rf"1 of 40 sequences cannot be used \(.*npz: {said}.*on_bad_sample=skip"):
        SequenceArrays(file).load(0)
    data = SequenceArrays(file, on_bad_sample="skip").load(0)
    assert len(data.train) + len(data.val) + len(data.test) == 39
    assert data.notes[0].startswith("skipped: 1 sequences")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sequences": np.zeros((40, 5))}, r"sequences has the shape \(40, 5\).*\(N, L, D\)"),
        ({"sequences": np.zeros((40, 0, 5))}, r"sequences has the shape \(40, 0, 5\)"),
        ({"sequences": np.full((40, 5, 3), "a")}, "the type <U1"),
        ({"lengths": np.ones(39, int)}, r"lengths has the shape \(39,\).*40 sequences"),
        ({"lengths": np.ones(40)}, "lengths has .* type float64"),
        (
            {"train_sequences": np.ones((4, 5, 3)), "train_labels": [0, 1, 0, 1], "val_sequences": np.ones((2, 5, 1))}
            | {"val_labels": [0, 1], "test_sequences": np.ones((2, 5, 3)), "test_labels": [0, 1]},
            "different numbers of values, 3 in train, 1 in val, 3 in test",
        ),
    ],
)
def test_arrays_that_cannot_be_used_are_one_error(archive, changes, said):
    file, _ = archive(**{name: np.asarray(array) for name, array in changes.items()})
    with pytest.raises(GraftError, match=said):
        SequenceArrays(file).load(0)


def test_an_array_may_name_groups_and_one_that_is_not_there_is_named(archive):
    file, _ = archive(patient=np.arange(40) // 4, scan=np.ones((40, 2)))
    data = SequenceArrays(file, split={"group": "patient"}).load(0)
    places = {name: {place.rpartition("[")[2] for place in getattr(data, name).places} for name in ("train", "test")}
    patients = {name: {int(place.rstrip("]")) // 4 for place in found} for name, found in places.items()}
    assert not patients["train"] & patients["test"]
    for rule, said in (
        ({"group": "who"}, "there is no such array"),
        ({"time": "scan"}, r"scan has the shape \(40, 2\)"),
    ):
        with pytest.raises(GraftError, match=rf"split\.\w+=\w+: {said}, where one value for each of 40 sequences"):
            SequenceArrays(file, split=rule).load(0)


def test_digits_row_by_row():
    data = DigitRows().load(0)
    assert [len(split) for split in (data.train, data.val, data.test)] == [1000, 297, 500]
    assert rows_of(data.train).values.shape == (1000, 8, 8)
    assert data.classes == tuple("0123456789")
