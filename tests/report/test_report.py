"""The page as a file: whole, self-contained and safe; where it may be written; the verbs and the end of a sweep."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from graft.cli.main import main
from graft.errors import GraftError
from graft.report import samples
from graft.report.export import Table
from graft.report.page import Page, Section
from graft.report.samples import Sample
from graft.runs.folder import SweepFolder
from tests.report.test_study import TEST, Sweep
from tests.small_run import config_in, train_in

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A sweep with its report, which tests only look at."""
    made = write_sweep(tmp_path_factory.mktemp("reported"))
    report(made)
    return made.folder


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path)


def write_sweep(root):
    """Three strategies at two rates with three seeds, and learning curves."""
    made = Sweep(root / "sweep")
    random = np.random.default_rng(0)
    for strategy, right in (("scratch", 100), ("full", 150), ("frozen", 130)):
        for rate in ("1e-3", "1e-2"):
            for seed in range(3):
                line = f"strategy={strategy} optimizer.lr={rate} seed={seed}"
                right_ones = random.permutation(TEST) < right + 5 * seed
                forgotten = {} if strategy == "scratch" else {"metrics": {"forgetting": 0.1}}
                made.add(line, right_ones, **forgotten)
                rows = [f"{epoch},{epoch},{0.1 * epoch}" for epoch in range(4)]
                metrics = "\n".join(["epoch,step,val/target/acc", *rows, ""])
                (made.folder / f"{made.jobs:03}" / "metrics.csv").write_text(metrics)
    made.claim()
    return made


def report(sweep):
    assert main(["report", str(sweep.folder)]) == 0
    return (sweep.folder / "report.html").read_text()


def test_the_page_needs_nothing_else(reported):
    text = (reported / "report.html").read_text()
    assert len(text) < 3_000_000
    assert text.count("<script") == 1  # which sorts tables
    outside = set(re.findall(r"(?:https?:)?//[\w./-]+", re.sub(r'src="data:[^"]*"|base64,[\w+/=\s]*', "", text)))
    assert all(one.startswith("http://www.w3.org/") for one in outside), outside  # SVG's names
    assert not re.search(r"<(?:link|img|iframe|object)\b", text)


def test_the_page_begins_with_the_answer_and_holds_its_pictures(reported, capsys):
    text = (reported / "report.html").read_text()
    assert main(["show", str(reported)]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("Transfer helps: +")
    shown = html.unescape(text)
    assert shown.index(line) < shown.index("<h2>Checks") < shown.index("<h2>Strategies")
    pictures = re.findall(r"<svg .*?</svg>", text, flags=re.DOTALL)
    names = {path.stem for path in (reported / "report").glob("*.svg")}
    assert names == {"gains", "heat_map", "learning_curves", "forgetting", "reliability"}
    assert len(pictures) == len(names)
    for picture in pictures:
        ElementTree.fromstring(picture)
        assert "currentColor" in picture


def test_figures_and_tables_are_files_too(reported):
    folder = reported / "report"
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            assert len(np.unique(np.asarray(image))) > 10
    with (folder / "strategies.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["strategy"] for row in rows} == {"scratch", "full", "frozen"}
    assert all(row["labels used"] == "500 + 100" for row in rows)
    assert (folder / "strategies.md").read_text().count("\n") == 2 + len(rows)
    assert (folder / "strategies.tex").read_text().count(r"\\") == 1 + len(rows)
    record = SweepFolder(reported).record
    assert {"report.html", "report/gains.svg", "report/strategies.tex"} <= set(record.files)


@pytest.mark.slow
def test_what_an_earlier_page_had_is_removed_and_nothing_else(sweep):
    report(sweep)
    (sweep.folder / "report" / "mine.txt").write_text("mine")
    for folder in sweep.folder.iterdir():
        if "1e-2" in ((folder / "overrides.yaml").read_text() if (folder / "overrides.yaml").is_file() else ""):
            shutil.rmtree(folder)
    report(sweep)
    names = {path.name for path in (sweep.folder / "report").iterdir()}
    assert "heat_map.svg" not in names
    assert {"mine.txt", "gains.svg"} <= names


def test_names_from_outside_are_text(sweep):
    sweep.strategies(seeds=3, **{"<script>alert($a_)</script>": 0.7})
    text = report(sweep)
    assert text.count("<script") == 1  # which sorts tables
    assert "&lt;script&gt;alert($a_)" in text  # no mathematics in a picture either


def test_latex_and_markdown_escape_what_means_something_there():
    table = Table("t", "T", "", ["a_b", "50 %"], [["x|y & z", "1"]])
    assert r"x|y \& z & 1 \\" in table.as_latex()
    assert r"a\_b & 50 \%" in table.as_latex()
    assert r"x\|y & z" in table.as_markdown()
    assert list(csv.reader(io.StringIO(table.as_csv())))[1] == ["x|y & z", "1"]


@pytest.mark.slow
def test_several_sweeps_go_to_a_folder_of_their_own(sweep, tmp_path, capsys):
    other = Sweep(tmp_path / "other").strategies(seeds=3, lora=0.9)
    folders = [str(sweep.folder), str(other.folder)]
    assert main(["report", *folders]) == 2
    assert "to=<folder>" in capsys.readouterr().err
    assert main(["report", *folders, f"to={tmp_path / 'both'}"]) == 0
    assert "lora" in (tmp_path / "both" / "report.html").read_text()
    assert main(["report", *folders, f"to={tmp_path / 'both'}"]) == 0  # it is Graft's, and written again
    (tmp_path / "both" / "report.html").write_text("mine")
    assert main(["report", *folders, f"to={tmp_path / 'both'}"]) == 2


def test_a_page_counts_as_a_look(reported):
    assert json.loads((reported / "looks.json").read_text()) == [[[0, 0], [0, 1], [0, 2]]]
    assert "looks.json" in SweepFolder(reported).record.files


@pytest.mark.slow
def test_a_strangers_file_stays(sweep, capsys):
    (sweep.folder / "report.html").write_text("mine")
    assert main(["report", str(sweep.folder)]) == 2
    assert "is in the way" in capsys.readouterr().err
    assert (sweep.folder / "report.html").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "graft report <folder"),
        (["nowhere"], "there is no such folder"),
        (["."], "the folder of neither a run nor a sweep"),
    ],
)
def test_a_mistake_is_one_line(arguments, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_sweep_writes_its_page_at_its_end(app, tmp_path):
    folder = tmp_path / "sweep"
    outcome = app("-m", "seed=0,1,2", f"hydra.sweep.dir={folder}")
    assert outcome.code == 0
    assert "No answer yet: there is no run from scratch to compare with." in outcome.out
    assert str(folder / "report.html") in outcome.out.splitlines()
    assert outcome.out.splitlines()[-1] == str(folder)
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_a_page_that_cannot_be_written_changes_nothing_of_the_sweep(app, tmp_path):
    command = ["-m", "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}"]

    def fail(cfg):
        raise GraftError("no")

    app.behave = fail
    app(*command)
    (tmp_path / "sweep" / "report.html").write_text("mine")
    app.behave = lambda cfg: None
    outcome = app(*command)
    assert outcome.code == 0
    assert "There is no report: " in outcome.err
    assert (tmp_path / "sweep" / "report.html").read_text() == "mine"
    assert (tmp_path / "sweep" / "summary.md").is_file()


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for number in range(40):
        file = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(file)
    tiny = ["training.epochs=2", "training.threads=1", "trainer=cpu", "logger=csv", "data.num_workers=0"]
    photos = ["data=image_folder", f"data.target.root={tmp_path / 'photos'}", "data.image_size=16", "backbone=lenet"]
    return [*tiny, *photos, "strategy=scratch", "task.label_smoothing=0"]


@pytest.mark.slow
def test_the_page_of_a_real_run_shows_its_worst_images_unless_names_are_hidden(photos, tmp_path):
    def page(folder, *overrides):
        results = train_in(tmp_path, *photos, *overrides, folder=folder)
        config = config_in(tmp_path, *photos, *overrides, folder=folder)
        (tmp_path / folder / "config.yaml").write_text(yaml.safe_dump(config))  # as a command does
        assert main(["report", str(tmp_path / folder)]) == 0
        return results, (tmp_path / folder / "report.html").read_text()

    results, text = page("run")
    assert f"Test acc {100 * results['score']['value']:.1f} % [" in text
    assert "This run is from scratch" in text
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)
    assert shown
    with Image.open(io.BytesIO(base64.b64decode(shown[0]))) as image:
        assert image.size == (24, 20)
    _, text = page("hidden", "save.redact=[names,paths]")
    assert "class 1" in text
    assert not any(word in text for word in ("<img", "dog", "cat/"))


def test_a_sample_is_shown_by_its_file(tmp_path):
    (tmp_path / "t.csv").write_text("a,label\n1,x\n2,y\n")
    assert samples.content_of(f"{tmp_path / 't.csv'}, row 3") == {"text": "a: 2, label: y"}
    (tmp_path / "t.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    assert samples.content_of(f"{tmp_path / 't.jsonl'}, row 2") == {"text": '{"text": "two"}'}
    (tmp_path / "s.wav").write_bytes(b"RIFF")
    assert samples.content_of(str(tmp_path / "s.wav"))["sound"].startswith("data:audio/wav;base64,")
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in (str(tmp_path / "broken.png"), str(tmp_path / "gone.png"), "digit 3", f"{tmp_path}/t.csv, row 99"):
        assert samples.content_of(name) == {}


def test_word_pieces_stand_together_and_files_by_their_last_parts():
    marks = [("apt", 0.5), ("##ly", -0.2), ("named", 0.1)]
    samples = [Sample("/data/sst2/test.tsv, row 3 (/my/photos/cat/1.jpg)", "1", marks=marks)]
    html = Page("toy", [], sections=[Section("Marked", samples=samples)]).html()
    assert re.search(">apt</span><span [^>]*>ly</span> <span [^>]*>named</span></p>", html)
    assert 'title="/data/sst2/test.tsv, row 3 (/my/photos/cat/1.jpg)">sst2/test.tsv, row 3 (cat/1.jpg)</small>' in html


def test_the_worst_samples_are_those_with_the_largest_loss():
    found = {
        "sample": ["s0", "s1", "s2"],
        "label": ["a", "b", "a"],
        "prediction": ["a", "a", "b"],
        "probabilities": [[0.9, 0.1], [0.8, 0.2], [0.05, 0.95]],
        "classes": ["a", "b"],
    }
    worst = samples.worst(found, content=True)
    assert [one.name for one in worst] == ["s2", "s1", "s0"]
    assert worst[0].note == f"loss {-np.log(0.05):.2f}"
    numbers = {"sample": ["s0", "s1"], "label": [1.0, 2.0], "prediction": [1.5, 5.0], "classes": None}
    assert [one.note for one in samples.worst(numbers, content=True)] == ["loss 3.00", "loss 0.50"]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [500, 1280])
def test_nothing_is_wider_than_the_screen_and_every_picture_is_drawn(reported, tmp_path, width):
    page = (reported / "report.html").read_text()
    measure = """<script>document.title = JSON.stringify({page: document.documentElement.scrollWidth,
      screen: window.innerWidth, pictures: [...document.querySelectorAll('figure svg')].map(
        one => [one.getBoundingClientRect().width, one.getBoundingClientRect().height])})</script></body>"""
    file = Path(tmp_path, "measured.html")
    file.write_text(page.replace("</body>", measure))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--window-size={width},900", "--dump-dom", file.as_uri()]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = json.loads(html.unescape(re.search(r"<title>(\{.*?\})</title>", text)[1]))
    assert found["page"] <= found["screen"]
    assert len(found["pictures"]) == 5
    assert all(100 < w <= found["screen"] and h > 50 for w, h in found["pictures"])


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_a_click_on_a_header_sorts_the_table(reported, tmp_path):
    """By number where a column holds numbers, by word elsewhere; a second click turns the order."""
    click = """<script>
      const table = document.querySelector("table"), read = place =>
        [...table.tBodies[0].rows].map(row => row.cells[place].textContent.trim());
      const found = [];
      for (const place of [0, 2]) for (const time of [1, 2]) {
        const head = table.tHead.rows[0].cells[place];
        head.querySelector("button").click();
        found.push([head.getAttribute("aria-sort"), read(place), table.querySelectorAll("[aria-sort]").length]);
      }
      document.title = JSON.stringify(found)</script></body>"""
    file = Path(tmp_path, "sorted.html")
    file.write_text((reported / "report.html").read_text().replace("</body>", click))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--dump-dom", file.as_uri()]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    words, turned, numbers, turned_numbers = json.loads(html.unescape(re.search(r"<title>(\[.*?\])</title>", text)[1]))
    assert words == ["ascending", sorted(words[1]), 1]
    assert turned == ["descending", sorted(words[1], reverse=True), 1]
    assert numbers[1] == sorted(numbers[1], key=float)
    assert turned_numbers[1] == sorted(numbers[1], key=float, reverse=True)
    assert len(set(numbers[1])) > 1
