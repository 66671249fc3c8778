"""`graft serve`: what the page and its JSON say is what the model says, and who may ask."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import contextmanager
from html import unescape
from http.client import HTTPConnection
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

import graft
from graft.cli.main import main
from graft.inspection.faithfulness import Verdict
from graft.model.model import Model
from graft.serve import posted
from graft.serve.app import app
from graft.serve.guard import Guard
from graft.serve.server import listen, server
from tests.conftest import tone

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
BOUNDARY = "--------graft"


class Page:
    """A server that answers, as a program or a browser asks it."""

    def __init__(self, port):
        self.port = port

    def ask(self, method, path, body=b"", **headers):
        """Status, headers and text of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        content = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, content

    def post(self, path, file=None, **values):
        """A form with a file `(name, content)` and values."""
        lines = []
        for name, value in values.items():
            lines += [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()]
        if file:
            head = f'Content-Disposition: form-data; name="file"; filename="{file[0]}"'
            lines += [f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + file[1] + b"\r\n"]
        body = b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])
        status, _, text = self.ask("POST", path, body, Content_Type=f"multipart/form-data; boundary={BOUNDARY}")
        return status, text

    def predict(self, *args, **values):
        """The JSON of a form."""
        status, text = self.post("/predict", *args, **values)
        return status, json.loads(text)


@contextmanager
def serving(model, limit_mb=1, wrapped=lambda one: one):
    """A server of a model on a free port."""
    with listen(0) as listener:
        running = server(wrapped(app(model, limit_mb)))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Page(listener.getsockname()[1])
        finally:
            running.should_exit = True
            thread.join()


@pytest.fixture
def no_disk(monkeypatch):
    """What is posted is written nowhere."""

    def rollover(self):
        raise AssertionError("a posted file goes to the disk")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", rollover)


def check_row(row, found):
    """A row of JSON says what a model says of one input."""
    assert row["prediction"] == found.labels[0]
    assert list(row["probabilities"]) == list(found.classes)
    np.testing.assert_allclose(list(row["probabilities"].values()), found.probabilities[0], atol=1e-6)
    assert row["confidence"] == pytest.approx(float(found.confidence[0]), abs=1e-6)
    assert row["unusual"] == bool(found.unusual[0])


@pytest.mark.usefixtures("no_disk")
def test_photos(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Verdict, "withheld", "random weights hardly change it")
    model = graft.load_run(run(*photos, "strategy=scratch", "save.neighbours=true"))
    files = sorted((tmp_path / "photos").rglob("*.*"))[:2]
    bomb = png_of(40_000, 40_000)
    with serving(model, limit_mb=4) as page:
        for file in files:  # a JPEG and a PNG
            status, row = page.predict((file.name, file.read_bytes()))
            assert (status, row["input"]) == (200, file.name)
            found = model.predict(file, nearest=3)
            check_row(row, found)
            assert [one["sample"] for one in row["nearest"]] == [one.sample for one in found.nearest[0]]
        noise = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3)).astype(np.uint8)
        large = io.BytesIO()
        Image.fromarray(noise).save(large, "PNG")
        assert 2**20 < len(large.getvalue()) < 4e6
        check_row(page.predict(("a.png", large.getvalue()))[1], model.predict(Image.fromarray(noise)))

        status, text = page.post("/", (file.name, file.read_bytes()), explain="on")
        assert status == 200
        assert f'<p class="answer">{row["prediction"]}</p>' in text
        assert text.count('src="data:image/jpeg') == 4  # itself, and the three nearest
        assert "<b>Withheld:</b> random weights hardly change it." in text
        monkeypatch.setattr(Verdict, "withheld", "")
        assert "Blue speaks for" in page.post("/", (file.name, file.read_bytes()), explain="on")[1]

        for name, content, code, said in [
            ("notes.txt", b"no picture", 415, "notes.txt cannot be read as an image (cannot identify image file)"),
            ("cut.png", large.getvalue()[:9000], 422, "cannot be read as an image"),
            ("bomb.png", bomb, 422, "bomb.png: it has more than 50,000,000 pixels."),
            ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", 422, "EPS files are not"),
            ("large.png", bytes(4_000_001), 413, "4 MB at most"),
            ("none.png", b"", 422, "Choose a file."),
            ("<b>.png", b"no picture", 415, "&lt;b&gt;.png cannot be read"),
        ]:
            status, text = page.post("/", (name, content))
            assert (status, said in text) == (code, True), text
            assert page.predict((name, content))[0] == code


def png_of(width, height):
    """A PNG that says that it is so large, and holds next to nothing."""
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "PNG")
    head = bytearray(content.getvalue())
    head[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    head[29:33] = zlib.crc32(head[12:29]).to_bytes(4, "big")
    return bytes(head)


def test_rows_and_who_may_ask(run, people, monkeypatch, capfd):
    model = graft.load_run(run(*people[0]))
    capfd.readouterr()
    with serving(model) as page:
        row = {"age": 33, "job": "smith", "height": None}
        form = {"row.age": "33", "row.job": "smith", "row.height": ""}
        posted_json = json.dumps({"row": row}).encode()
        status, _, text = page.ask("POST", "/predict", posted_json, Content_Type="application/json")
        assert status == 200
        check_row(json.loads(text), model.predict([row]))
        assert page.predict(**form) == (200, json.loads(text))
        status, text = page.post("/", **form)
        assert status == 200
        assert 'value="33"' in text
        assert "<option selected>smith</option>" in text
        for values, said in [
            ({"row.age": "old", "row.job": "cook", "row.height": "1"}, "'old' in 'age' is no number"),
            ({"row.age": "1"}, "it has no column job, height"),
            ({}, "`row` is empty"),
        ]:
            status, answer = page.predict(**values)
            assert (status, said in answer["error"]) == (422, True), answer

        status, headers, _ = page.ask("GET", "/")
        assert status == 200
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        json_type = {"Content_Type": "application/json"}
        here = f"127.0.0.1:{page.port}"
        for code, asked in [
            (403, {"Host": "evil.example"}),
            (403, {"Host": f"evil.example:{page.port}"}),
            (403, {"Host": ""}),
            (403, {"Origin": "http://evil.example"}),
            (403, {"Origin": "null"}),
            (403, {"Origin": "http://localhost"}),
            (200, {"Origin": f"http://{here}"}),
            (200, {"Host": "localhost:9000", "Origin": "http://localhost:9000"}),  # a tunnel
        ]:
            status, headers, _ = page.ask("POST", "/predict", posted_json, **json_type, **asked)
            assert status == code, asked
            assert "Content-Security-Policy" in headers
        assert page.ask("GET", "/", Host="evil.example")[0] == 403
        for body, kind, code in [
            (b"{", "application/json", 400),
            (b'{"row": {"age": "\\ud800", "job": "", "height": ""}}', "application/json", 400),
            (b"[1]", "application/json", 422),
            (b'{"row": {"age": [1]}}', "application/json", 422),
            (b'{"row": {"age": 1}, "explain": 1}', "application/json", 422),
            (posted_json, "text/plain", 415),
            (b"nothing", "multipart/form-data", 400),
            (bytes(1_000_001), "application/json", 413),
            (iter([bytes(600_000)] * 2), "application/json", 413),  # in chunks, of a length that is not said
        ]:
            assert page.ask("POST", "/predict", body, Content_Type=kind)[0] == code, body
        assert [page.ask("GET", path)[0] for path in ("/predict", "/../pyproject.toml", "/page.css")] == [405, 404, 200]
        assert capfd.readouterr() == ("", "")  # nothing is logged

        def fail(self, *args, **options):
            raise RuntimeError("secret")

        monkeypatch.setattr(Model, "predict", fail)
        status, answer = page.predict(**form)
        assert (status, answer["error"]) == (500, "The network failed on this input (RuntimeError).")
    assert capfd.readouterr() == ("", "A prediction failed: RuntimeError.\n")


def test_predictions_wait_for_one_another_and_the_page_does_not(run, people, monkeypatch):
    model = graft.load_run(run(*people[0]))
    begun, go_on, running, most = threading.Event(), threading.Event(), [], []
    predict = Model.predict

    def slowly(self, *args, **options):
        running.append(1)
        most.append(len(running))
        begun.set()
        assert go_on.wait(30)
        running.pop()
        return predict(self, *args, **options)

    monkeypatch.setattr(Model, "predict", slowly)
    with serving(model) as page:
        form, answers = {"row.age": "33", "row.job": "smith", "row.height": ""}, []
        asking = [threading.Thread(target=lambda: answers.append(page.predict(**form)[0])) for _ in range(3)]
        for one in asking:
            one.start()
        assert begun.wait(30)
        assert page.ask("GET", "/")[0] == 200
        go_on.set()
        for one in asking:
            one.join()
    assert (answers, max(most)) == ([200] * 3, 1)


def test_texts(run, reviews):
    model = graft.load_run(run(*reviews[0], "backbone=lstm", "strategy=scratch"))
    text = "a good film <b>of</b> number 3"
    with serving(model) as page:
        answer = page.ask("POST", "/predict", json.dumps({"text": text}).encode(), Content_Type="application/json")
        check_row(json.loads(answer[2]), model.predict([text]))
        status, html = page.post("/", text=text)
        assert status == 200
        assert html.count("a good film &lt;b&gt;of&lt;/b&gt; number 3") == 2  # as it was given, and in the form
        assert page.predict(text=" ") == (422, {"error": "`text` is empty: give a text."})


def test_recordings(run, tones, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    keys = ["data=speech", f"data.target.root={tones}", "backbone=mel_cnn", "backbone.name=test_resnet"]
    sound = ["sample_rate=8000", "clip_seconds=0.3", "n_mels=32", "hop_length_ms=10"]
    pattern = r"data.target.pattern='(?P<label>[a-z]+)_(?P<speaker>[a-z]+)_(?P<index>\d+)'"
    fractions = ["data.target.test_fraction=0.3", "data.target.val_fraction=0.3"]
    keys += [*(f"backbone.{one}" for one in sound), pattern, *fractions, "strategy=scratch", "data.batch_size=4"]
    model = graft.load_run(run(*keys))
    file = sorted(tones.glob("*.wav"))[0]
    long, slow = io.BytesIO(), io.BytesIO()
    soundfile.write(long, np.zeros(700 * 8000, dtype=np.float32), 8000, format="FLAC")
    soundfile.write(slow, np.tile(tone(300), 100), 100, format="WAV")
    with serving(model) as page:
        status, row = page.predict((file.name, file.read_bytes()))
        assert status == 200
        check_row(row, model.predict(file))
        assert '<audio controls src="data:audio/wav;base64,' in page.post("/", (file.name, file.read_bytes()))[1]
        assert page.predict(("a.flac", long.getvalue())) == (
            422,
            {"error": "a.flac: it is too long, 700 seconds; 600 at most."},
        )
        assert page.predict(("a.wav", slow.getvalue()))[0] == 422
        assert page.predict(("a.wav", b"RIFF"))[0] == 415


def test_a_tiff_of_many_bands_is_checked_before_it_is_decoded(monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    content = io.BytesIO()
    tifffile.imwrite(content, np.zeros((5, 8, 9), np.uint8), photometric="minisblack", planarconfig="separate")
    assert posted.image_problem(content.getvalue()) == ""
    monkeypatch.setattr(posted, "MOST_PIXELS", 8 * 9)
    assert "more than 72 pixels" in posted.image_problem(content.getvalue())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "graft serve run=<folder>"),
        (["run=x", "prot=1"], "'prot=1' is none of its keys"),
        (["run=x", "port=many"], "port=many: a whole number from 0 to 65535."),
        (["run=x", "limit_mb=0"], "limit_mb=0: a whole number from 1 to 1000."),
        (["run=x", "host=0.0.0.0"], "host=0.0.0.0: the page is at 127.0.0.1 alone"),
        (["run=nowhere", "port=0"], "nowhere: there is no such folder"),
    ],
)
def test_mistakes_of_the_command_are_named(arguments, said, capsys):
    assert main(["serve", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_and_a_package_that_is_missing(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "run=x", f"port={port}"]) == 2
    assert f"port={port}: it cannot be listened on (Address already in use)" in capsys.readouterr().err
    monkeypatch.setattr("graft.commands.serve.NEEDED", ("starlette", "no-such-package"))
    assert main(["serve", "run=x"]) == 2
    assert "graft serve needs no-such-package. Install them: pip install '.[serve]'" in capsys.readouterr().err


MEASURE = """const bars = [...document.querySelectorAll(".bar rect")].map(one => one.getBoundingClientRect().width);
document.title = JSON.stringify({page: document.documentElement.scrollWidth, screen: innerWidth, bars: bars,
  answer: document.querySelector(".answer")?.textContent, button: document.querySelector("button").disabled});"""


def with_measuring(page, html):
    """Beside what a page serves, under the same headers, `/answer` with a script that measures how it is drawn."""
    measuring = html.replace("</body>", '<script src="measure.js" defer></script></body>')
    return Starlette(
        routes=[
            Route("/answer", lambda request: HTMLResponse(measuring)),
            Route("/measure.js", lambda request: Response(MEASURE, media_type="text/javascript")),
            Mount("/", page),
        ],
        middleware=[Middleware(Guard)],
    )


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_draws_the_answer(run, people, tmp_path, width):
    model = graft.load_run(run(*people[0]))
    with serving(model) as page:
        form = {"row.age": "33", "row.job": "smith", "row.height": "180", "explain": "on"}
        html = page.post("/", **form)[1]
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--enable-logging=stderr", f"--window-size={width},900", "--dump-dom"]
    with serving(model, wrapped=lambda one: with_measuring(one, html)) as page:
        where = f"http://127.0.0.1:{page.port}/answer"
        done = subprocess.run([*command, where], capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(unescape(re.search(r"<title>(\{.*?\})</title>", done.stdout)[1]))
    assert found["page"] <= found["screen"]
    assert found["answer"] in ("no", "yes")
    assert max(found["bars"]) > 30
    assert not found["button"]
    assert "CONSOLE" not in done.stderr, "an error, or something that the Content-Security-Policy blocks"


@pytest.mark.slow
def test_what_is_no_page_is_refused(run, tmp_path, capsys):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "steps.npz", sequences=random.normal(size=(60, 5, 3)), labels=np.arange(60) % 2)
    keys = ["data=sequences", "data/domain@data.target=sequence_arrays", "backbone=lstm_sequence"]
    folder = run(*keys, f"data.target.file={tmp_path / 'steps.npz'}", "strategy=scratch")
    assert main(["serve", f"run={folder}", "port=0"]) == 2
    assert "its modality is sequence, and the page takes image, audio, text, table" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_answers_until_it_is_stopped(run, people, signum, code):
    folder = run(*people[0])
    words = [sys.executable, "-m", "graft", "serve", f"run={folder}", "port=0"]
    source = str(Path(graft.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        line = process.stdout.readline()
        page = Page(int(line.split("http://127.0.0.1:")[1].split()[0]))
        assert page.ask("GET", "/")[0] == 200
        time.sleep(0.2)
        process.send_signal(signum)
        assert process.wait(30) == code
        assert "Traceback" not in process.stderr.read()
