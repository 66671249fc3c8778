"""Rows, the table and the command: what is measured, said and written."""

import json

import pytest

from benchmarks import pictures, table
from benchmarks.__main__ import main
from benchmarks.measure import Cost
from benchmarks.row import Bar, Measured, Row, compared, run_row
from benchmarks.rows import ROWS


def row(name="some", measure=lambda settings: Measured([1.0]), **more):
    return Row(name, "ours", "theirs", Bar("<=", 1.10), measure, **more)


def broken(settings):
    raise RuntimeError("no such thing\nat all")


def test_bars_go_both_ways_and_include_their_value():
    assert Bar("<=", 1.1).met(1.1)
    assert not Bar("<=", 1.1).met(1.2)
    assert Bar(">=", 10).met(10)
    assert not Bar(">=", 10).met(9.9)
    assert str(Bar("<=", 1.1)) == "<= 1.10"


def test_the_median_decides_about_the_bar():
    assert run_row(row(measure=lambda s: Measured([1.0, 1.05, 9.0])), None, quick=False).met is True
    assert run_row(row(measure=lambda s: Measured([1.0, 1.15, 9.0])), None, quick=False).met is False


def test_a_row_gets_its_own_folder_and_its_number_of_repeats():
    seen = []
    measured = row(
        measure=lambda s: seen.append((s.folder, s.folder.exists(), s.repeats)) or Measured([1.0]), repeats=7
    )
    run_row(measured, None, quick=False)
    run_row(measured, 3, quick=True)
    run_row(measured, None, quick=True)
    assert [repeats for _, _, repeats in seen] == [7, 3, 2]
    assert all(existed and not folder.exists() for folder, existed, _ in seen)


def test_quick_picks_the_small_size():
    sizes = []
    for quick in (False, True):
        run_row(row(measure=lambda s: sizes.append(s.pick(100, 1)) or Measured([1.0])), None, quick=quick)
    assert sizes == [100, 1]


def test_a_row_that_fails_does_not_end_the_others(tmp_path, capsys):
    assert main([], [row("bad", broken), row("good")], tmp_path) == 1
    out = capsys.readouterr().out
    assert "bad: failed: RuntimeError: no such thing at all" in out
    assert "good" in out
    assert [r["status"] for r in json.loads((tmp_path / "bench.json").read_text())["rows"]] == ["failed", "measured"]


def test_a_row_that_cannot_run_here_is_skipped_with_its_reason(tmp_path, capsys):
    assert main([], [row(measure=broken, missing=lambda: "needs a CUDA GPU")], tmp_path) == 0
    assert "skipped: needs a CUDA GPU" in capsys.readouterr().out


def test_the_table_shows_what_the_bar_is_and_what_was_measured_beside():
    measured = Measured([1.0, 1.2, 1.4, 1.0, 1.2, 1.4], beside={"another over theirs": [2.0]}, notes=["a note"])
    lines = table.render([run_row(row(measure=lambda s: measured, unit="s"), None, quick=False)]).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        *("some", "ours over theirs", "1.200 s", "1.000 to 1.400", "1.000 to 1.400", "6", "<= 1.10 s", "NO")
    ]
    assert [cell.strip() for cell in lines[3].split("|")[2:4]] == ["another over theirs", "2.000 s"]
    assert lines[-1] == "some: a note"
    assert len({len(line) for line in lines[:4]}) == 1


def test_costs_are_compared_in_wall_time_and_in_cpu_time():
    measured = compared({"ours": [Cost(2.0, 3.0)], "theirs": [Cost(1.0, 2.0)]}, ["a note"])
    assert measured.values == [2.0]
    assert measured.beside == {"the same in CPU seconds": [1.5]}
    assert measured.notes == ["a note"]
    assert measured.details["costs"]["ours"] == [{"seconds": 2.0, "cpu_s": 3.0}]


def test_the_file_holds_machine_values_and_verdict(tmp_path):
    main(["--only", "b", "--repeats", "4"], [row("a"), row("b", lambda s: Measured([float(s.repeats)]))], tmp_path)
    report = json.loads((tmp_path / "bench.json").read_text())
    assert {"cpu", "cores", "python", "packages", "gpu", "system", "torch_threads"} <= set(report["machine"])
    assert [(r["name"], r["median"], r["values"], r["met"]) for r in report["rows"]] == [("b", 4.0, [4.0], False)]


def test_an_unknown_row_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--only", "nothing"], [row("a")], tmp_path)
    assert "nothing" in capsys.readouterr().err


def test_the_list_measures_nothing(tmp_path, capsys):
    assert main(["--list"], [row("bad", broken)], tmp_path) == 0
    assert "ours over theirs, <= 1.10" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_growth_is_drawn(tmp_path):
    details = {"factors": (1, 4, 16), "seconds": [[1.0], [3.0], [9.0]]}
    grown = run_row(row("growth_samples", lambda s: Measured([0.8], details=details)), None, quick=False)
    assert not pictures.draw_growth([run_row(row(), None, quick=False)], tmp_path / "none.png")
    assert pictures.draw_growth([grown], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_every_row_has_a_name_of_its_own():
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_cheap_row_runs_quickly(tmp_path, capsys):
    assert main(["--only", "help", "--quick"], folder=tmp_path) == 0
    assert "train.py --help" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "bench.json").read_text())["rows"][0]["values"]) == 2
