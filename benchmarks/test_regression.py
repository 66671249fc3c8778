"""Which figures count as a regression."""

import pytest

from benchmarks.regression import RECORDED, main
from benchmarks.row import Bar, Measured, Row
from benchmarks.rows import ROWS


def row(value, sign="<="):
    return Row("some", "ours", "theirs", Bar(sign, 1.0), lambda settings: Measured([value]))


@pytest.mark.parametrize(
    ("value", "sign", "code"), [(1.29, "<=", 0), (1.31, "<=", 1), (0.5, "<=", 0), (0.78, ">=", 0), (0.76, ">=", 1)]
)
def test_a_figure_may_be_up_to_1_3_times_worse(value, sign, code, capsys, monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert main({"some": 1.0}, [row(value, sign)]) == code
    assert ("times worse" in capsys.readouterr().out) == bool(code)


def test_a_row_that_fails_is_told_where_a_workflow_shows_it(capsys, monkeypatch):
    def broken(settings):
        raise RuntimeError("no such thing")

    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert main({"some": 1.0}, [Row("some", "ours", "theirs", None, broken)]) == 1
    assert "::warning title=bench-regression::some: failed: RuntimeError: no such thing" in capsys.readouterr().out


def test_only_ratios_are_on_record():
    recorded = [row for row in ROWS if row.name in RECORDED]
    assert len(recorded) == len(RECORDED)
    assert all(row.other and not row.unit for row in recorded)
