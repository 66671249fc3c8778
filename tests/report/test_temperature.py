"""Temperature scaling and calibration error, against computations of their own in float64."""

import numpy as np
import pytest
from scipy import special

from graft.report import temperature
from graft.report.statistics import calibration
from graft.report.study import of_jobs
from graft.report.sweep_page import page
from graft.runs.sweeps import read_jobs
from tests.report.test_study import TEST, Sweep


@pytest.fixture
def sure():
    """Logits that are three times too large for how labels are drawn from them."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5))
    labels = np.array([random.choice(5, p=special.softmax(row)) for row in logits])
    return 3 * logits, labels


def test_the_temperature_has_the_smallest_loss(sure):
    logits, labels = sure
    found = temperature.fit(special.softmax(logits, axis=1), labels)
    assert found == pytest.approx(3, rel=0.05)

    def loss(t):
        return -special.log_softmax(logits / t, axis=1)[np.arange(len(labels)), labels].mean()

    assert loss(found) <= min(loss(t) for t in np.linspace(0.9, 1.1, 21) * found) + 1e-9
    described = temperature.describe(special.softmax(logits, axis=1), labels)
    assert described["val_loss"] == pytest.approx(loss(1))
    assert described["val_loss_after"] == pytest.approx(loss(found))
    assert described["labels"] == 4000


def test_tempered_probabilities_are_those_of_the_logits(sure):
    logits, _ = sure
    found = temperature.tempered(special.softmax(logits, axis=1), 2.5)
    np.testing.assert_allclose(found, special.softmax(logits / 2.5, axis=1), atol=1e-9)
    odds = np.linspace(-10, 10, 41)
    two = np.stack([1 - special.expit(odds), special.expit(odds)], axis=1)
    np.testing.assert_allclose(temperature.tempered(two, 2.5)[:, 1], special.expit(odds / 2.5), atol=1e-6)


def test_float32_zeros_neither_break_nor_hide_a_mistake():
    probabilities = np.array([[1.0, 0.0, 0.0]] * 9 + [[1.0, 0.0, 0.0]], dtype=np.float32)
    found = temperature.fit(probabilities, np.array([0] * 9 + [1]))
    assert found == pytest.approx(temperature.HIGHEST, rel=0.01)  # one surely wrong of ten: as unsure as can be
    assert temperature.temperature_cell([found]).endswith("(end of the search)")


def test_scaling_lowers_the_calibration_error(sure):
    logits, labels = sure
    probabilities = special.softmax(logits, axis=1)

    def error(p):
        confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
        order = np.argsort(confidence, kind="stable")
        parts = np.array_split(order, 10)
        return sum(abs(confidence[part].mean() - right[part].mean()) * len(part) for part in parts) / len(order)

    scaled = temperature.tempered(probabilities, temperature.fit(probabilities, labels))
    for p in (probabilities, scaled):
        measured = calibration(p.max(axis=1), (p.argmax(axis=1) == labels).astype(float)).error
        assert measured == pytest.approx(error(p), abs=1e-3)
    assert error(scaled) < 0.3 * error(probabilities)


def test_a_sweeps_table_has_both_errors(tmp_path):
    made = Sweep(tmp_path / "sweep")
    random = np.random.default_rng(0)
    for strategy in ("scratch", "full"):
        for seed in range(3):
            more = {"temperature": {"value": 1.0, "labels": 100}} if strategy == "full" else {}
            made.add(f"strategy={strategy} seed={seed}", random.random(TEST) < 0.6, **more)
    made.claim()
    jobs = read_jobs(made.folder)
    tables = {t.name: t for section in page(of_jobs([made.folder], jobs)).sections for t in section.tables}
    header, rows = tables["calibration"].header, {row[0]: row for row in tables["calibration"].rows}
    place = {name: header.index(name) for name in ("ECE", "temperature", "ECE scaled")}
    assert rows["full"][place["ECE scaled"]] == rows["full"][place["ECE"]]  # a temperature of 1 changes nothing
    assert rows["full"][place["temperature"]] == "1"
    assert rows["scratch"][place["temperature"]] == ""
