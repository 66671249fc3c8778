"""What pages and pictures call configurations, and that pictures have room for it."""

import pytest
from matplotlib.figure import Figure

from graft.report import figures, sweep_page
from graft.report.names import short_names, short_values, wrapped
from graft.runs.sweeps import Row
from tests.report.test_study import TEST, Sweep

BEGUN = r"/data/runs/begin/MNIST_$\{seed\}"


def names(*overrides):
    rows = [Row(dict(word.split("=", 1) for word in one.split())) for one in overrides]
    keys = list(dict.fromkeys(key for row in rows for key in row.overrides))
    return [*short_names(rows, keys).values()]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["strategy=full", "strategy=lora"], ["full", "lora"]),
        (["term=[mcc]", "term=[]", "term=[mcc,coral]"], ["mcc", "no term", "mcc,coral"]),
        (["objective.alpha=0", "objective.alpha=0.5"], ["objective.alpha=0", "objective.alpha=0.5"]),
        (["backbone.weights=null", "backbone.weights=imagenet"], ["backbone.weights=null", "imagenet"]),
        ([rf"backbone.weights={BEGUN}", r"backbone.weights=pip\:vgg"], ["begin/MNIST_${seed}", "pip:vgg"]),
        # what only goes with another key is left out, and an option is rather kept than a number
        ([f"term=[shot] head.weights={BEGUN} term.shot.weight=0.1", "term=[mcc]"], ["shot", "mcc"]),
        (["head.width=5 strategy=full", "head.width=7 strategy=lora"], ["full", "lora"]),
        (["term=[shot] head.width=5", "head.width=7"], ["shot", "default"]),
        # and what tells them apart stays
        (["strategy=full head=a", "strategy=full head=b"], ["a", "b"]),
        (
            ["strategy=full head=a", "strategy=full head=b", "strategy=lora head=a"],
            ["strategy=full head=a", "strategy=full head=b", "strategy=lora head=a"],
        ),
        (["strategy=full"], [""]),
        (["", "strategy=full"], ["default", "full"]),
        (["strategy=default", ""], ["strategy=default", "default"]),
    ],
)
def test_a_name_is_as_short_as_tells_configurations_apart(overrides, expected):
    assert names(*overrides) == expected


def test_of_paths_the_last_parts_stay_that_tell_them_apart():
    assert short_values(["/a/b/one.txt", "/a/b/two.txt"]) == {"/a/b/one.txt": "b/one.txt", "/a/b/two.txt": "b/two.txt"}
    assert [*short_values(["/a/x/b/c.pt", "/a/y/b/c.pt"]).values()] == ["x/…", "y/…"]
    paths = ["/p/a/b/c", "/q/a/b/c", "/q/z/b/c"]
    assert [*short_values(paths).values()] == [path[1:] for path in paths]
    assert [*short_values(["org/model", "null"]).values()] == ["org/model", "null"]


def test_long_names_are_broken_where_their_words_end():
    assert wrapped("information_maximisation") == "information_maximisation"
    assert wrapped("strategy=full head=bottleneck", 16) == "strategy=full\nhead=bottleneck"
    assert wrapped("runs/digits/begin/MNIST", 12) == "runs/digits/\nbegin/MNIST"


def long_names(sweep):
    """Eight arms and a reference that only long values of two keys tell apart, tried at two rates."""
    for number in range(18):
        path = f"/data/shared/a_folder_of_runs/that_has_a_long_name_{number // 6}/checkpoints/the_best_one_of_all.ckpt"
        sharing, rate = ("shared", "separate", "none")[number // 2 % 3], 10.0 ** -(1 + number % 2)
        for seed in range(3):
            right = [(sample * 7 + seed) % 200 < 100 + 3 * number for sample in range(TEST)]
            sweep.add(
                f"backbone.weights={path} head.sharing={sharing} optimizer.lr={rate} seed={seed}",
                right,
                weights=None if number < 2 else {"source": path},
                metrics={"forgetting": number / 50},
            )
            lines = ["epoch,step,val/target/acc", *(f"{e},{e},{0.5 + e / 9 + seed / 50}" for e in range(4))]
            (sweep.folder / f"{sweep.jobs:03}" / "metrics.csv").write_text("\n".join(lines) + "\n")
    return sweep


def test_pictures_have_room_for_long_names(tmp_path, monkeypatch):
    """Warnings, of a layout for which there is no room too, are errors in tests."""
    found, saved = {}, Figure.savefig

    def save(figure, file, **options):
        saved(figure, file, **options)
        if options["format"] == "png":
            width, height = figure.get_size_inches()
            inside = figure.get_tightbbox(figure.canvas.get_renderer())
            found[figure.axes[0].get_xlabel()] = (width, height, *inside.extents)

    monkeypatch.setattr(Figure, "savefig", save)
    page = sweep_page.page(long_names(Sweep(tmp_path)).read())
    pictures = [picture for section in page.sections for picture in section.pictures]
    assert {one.name for one in pictures} == {"gains", "heat_map", "learning_curves", "forgetting", "reliability"}
    for width, height, left, bottom, right, top in found.values():
        assert (left, bottom) > (-0.02, -0.02)
        assert (right, top) < (width + 0.02, height + 0.02)
    assert len(found) == 5


def test_the_table_has_the_whole_overrides_of_what_is_named_briefly(tmp_path):
    found = long_names(Sweep(tmp_path)).read()
    table = sweep_page.strategies(found, found.settings[0])
    assert table.header[-1] == "overrides"
    assert {row[-1].split("/")[4] for row in table.rows} == {f"that_has_a_long_name_{n}" for n in range(3)}
    assert not any("a_folder_of_runs" in row[0] for row in table.rows)


def test_an_arm_has_one_colour_in_all_settings(tmp_path):
    sweep = Sweep(tmp_path)
    for place, better in (("5", "lora"), ("20", "full")):
        for name in ("scratch", "full", "lora"):
            for seed in range(3):
                right = [sample < 100 + 20 * (name == better) + seed for sample in range(TEST)]
                sweep.add(f"data.labels_per_class={place} strategy={name} seed={seed}", right)
    found = sweep.read()
    assert [setting.arms[0].name for setting in found.settings] == ["full", "lora"]
    colours = figures.colors_of(found)
    assert len({*colours.values()}) == len(colours) == 3
    assert colours["scratch"] == figures.SCRATCH


def test_a_glyph_that_the_font_lacks_warns_nobody():
    picture = figures.confusion([[3, 1], [0, 2]], ["Τίγρις", "猫"])
    assert "猫" in picture.svg
