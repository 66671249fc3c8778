"""`data.refit`: validation samples train as well."""

import pytest
import torch

from graft.data.join import with_validation
from graft.data.samples import rows_of
from graft.data.sources.digits import DigitRows, Digits
from graft.data.sources.sklearn_table import SklearnTable
from graft.inputs.table import TableTransform


@pytest.mark.parametrize("domain", [Digits(), DigitRows(), SklearnTable("wine")], ids=["images", "sequences", "table"])
def test_training_samples_come_first_and_validation_behind_them(domain):
    before = domain.load(0)
    after = with_validation(before)
    assert (len(after.train), len(after.val)) == (len(before.train) + len(before.val), 0)
    assert torch.equal(after.train.labels, torch.cat([before.train.labels, before.val.labels]))
    assert after.train.sources is None
    assert after.train.fingerprint != before.train.fingerprint
    assert after.test is before.test
    if before.modality == "image":
        assert torch.equal(after.train.inputs[len(before.train)], before.val.inputs[0])
    elif before.modality == "table":
        columns = rows_of(after.train).columns
        rows = TableTransform(columns).prepare(after.train, None)
        alone = TableTransform(columns).prepare(before.val, None)
        assert torch.equal(rows.numbers[len(before.train) :], alone.numbers)
    else:
        own, others = rows_of(after.train), rows_of(before.val)
        assert torch.equal(own.values[len(before.train) :][:, : others.values.shape[1]], others.values)
        assert torch.equal(own.lengths[len(before.train) :], others.lengths)
