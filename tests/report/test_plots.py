import csv

import numpy as np
import pytest
from lanes import slow
from matplotlib.figure import Figure
from PIL import Image

from graft.report.figures import label_beside
from graft.report.plots import confusion_matrix, curves, range_test, read_series
from graft.training.tuning import Curve


def write(path, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def is_picture(path):
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and len(np.unique(np.asarray(image))) > 10


@pytest.mark.parametrize("classes", [2, 40, *slow(10, 150)])
def test_confusion_matrix_at_any_number_of_classes(tmp_path, classes):
    matrix = np.random.default_rng(0).integers(0, 30, (classes, classes)) + 100 * np.eye(classes, dtype=int)
    confusion_matrix(matrix.tolist(), [f"class {i}" for i in range(classes)], tmp_path / "c.png")
    assert is_picture(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert max(image.size) < 2000


def test_confusion_matrix_rows_are_true_classes(tmp_path):
    """The dark cell of a matrix with one entry is in that row and column."""
    matrix = np.zeros((3, 3))
    matrix[0, 2] = 5  # true class 0 predicted as 2: top right
    confusion_matrix(matrix.tolist(), ["a", "b", "c"], tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    left_part = pixels[:, : int(pixels.shape[1] * 0.8)]  # without the colour bar
    dark = (left_part[..., 2] > 80) & (left_part[..., 0] < 30) & (left_part[..., 1] < 80)
    rows, columns = np.nonzero(dark)
    assert rows.mean() < pixels.shape[0] / 2
    assert columns.mean() > left_part.shape[1] / 2


def test_confusion_matrix_of_a_class_that_never_occurs(tmp_path):
    confusion_matrix([[0, 0], [1, 3]], ["never", "always"], tmp_path / "c.png")
    assert is_picture(tmp_path / "c.png")


def test_series_are_by_epoch_from_one(tmp_path):
    rows = [
        {"epoch": 0, "step": 1, "train/target/loss": 2.0},
        {"epoch": 0, "step": 2, "train/target/loss": 1.0},
        {"epoch": 0, "step": 2, "val/target/acc": 0.5, "val/target/loss": 3.0},
        {"epoch": 1, "step": 4, "val/target/acc": 0.75},
        {"epoch": 1, "step": 4, "lr": 0.1, "test/target/acc": 0.9},
    ]
    assert read_series(write(tmp_path / "metrics.csv", rows)) == {
        ("train", "target", "loss"): {1: 1.5},
        ("val", "target", "acc"): {1: 0.5, 2: 0.75},
        ("val", "target", "loss"): {1: 3.0},
    }


def test_curves(tmp_path):
    rows = [
        {"epoch": e, "step": e, f"{stage}/{domain}/{metric}": 1 / (e + 1)}
        for e in range(3)
        for stage in ("train", "val")
        for domain in ("target", "source")
        for metric in ("loss", "acc")
    ]
    curves(write(tmp_path / "metrics.csv", rows), tmp_path / "curves.png")
    assert is_picture(tmp_path / "curves.png")
    curves(write(tmp_path / "loss.csv", [{"epoch": 0, "step": 0, "train/target/loss": 1.0}]), tmp_path / "one.png")
    assert is_picture(tmp_path / "one.png")


def test_no_curves_without_columns(tmp_path):
    curves(write(tmp_path / "metrics.csv", [{"epoch": 0, "step": 0, "lr": 1.0}]), tmp_path / "curves.png")
    curves(tmp_path / "nowhere.csv", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("losses", [[2.0, 1.0], [1.0] * 30, [3 - 0.1 * i for i in range(29)] + [1e30]], ids=len)
def test_a_range_test_of_any_shape(tmp_path, losses):
    curve = Curve([10.0 ** (-5 + i / 6) for i in range(len(losses))], losses, diverged=False, phase=1, seconds=0.0)
    range_test(curve, curve.suggestions(), tmp_path / "lr_find.png")
    assert is_picture(tmp_path / "lr_find.png")


def test_names_of_points_at_one_place_do_not_cover_each_other():
    axes = Figure().add_subplot()
    points = [(f"strategy {number}", 0.0, 1.0) for number in range(16)]
    axes.plot([0, 0], [0, 1])
    label_beside(axes, points)
    heights = sorted(text.xyann[1] for text in axes.texts)
    assert heights[0] >= 0
    assert heights[-1] <= 1
    assert np.diff(heights).min() > 0.06


def test_long_names_in_any_script_leave_room_for_the_matrix(tmp_path):
    """Warnings, of glyphs that the font lacks and of a layout without room, are errors in tests."""
    classes = ["Polyommatus_icarus_ssp_" + "of_the_southern_meadows_" * 4, "猫科动物"]
    confusion_matrix([[3, 1], [0, 2]], classes, tmp_path / "c.png")
    assert is_picture(tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert max(image.size) < 2000
