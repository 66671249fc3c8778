"""A fusion's finished model: files that answer as it does, a page, folders of pairs, and explanations by part."""

import base64
import csv
import json
import shutil
import wave

import numpy as np
import pytest
from PIL import Image

import graft
from graft.cli.main import main
from graft.export import write
from graft.export.torch_file import read
from graft.export.write import export
from graft.inspection.faithfulness import Verdict
from tests.model.test_export import opened
from tests.model.test_serve import serving

JSON = {"Content_Type": "application/json"}


@pytest.fixture
def visits(tmp_path):
    """Overrides of 60 samples with a note, a picture and table fields, and a fusion of small networks for them."""
    lines = ["note,scan,voice,age,ward,ill"]
    (tmp_path / "scans").mkdir()
    for i in range(60):
        Image.new("L", (16, 16), (250 if i % 2 else 20) + i % 5).save(tmp_path / "scans" / f"{i}.png")
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(np.full(800, 50 * i, dtype="<i2").tobytes())
        note = "" if i % 9 == 0 else f"a {'good' if i % 2 else 'bad'} day {i}"
        scan = "" if i % 10 == 3 else f"scans/{i}.png"
        lines.append(f"{note},{scan},{i}.wav,{20 + i * 7 % 50},{'old' if i % 3 else 'new'},{i % 2}")
    (tmp_path / "visits.csv").write_text("\n".join(lines))
    data = ["data=multimodal", "data/domain@data.target=multimodal_file", f"data.target.file={tmp_path / 'visits.csv'}"]
    data += ["data.target.label=ill", "data.target.text=note", "data.target.image=scan", "data.target.channels=1"]
    data += ["data.image_size=16", "data.batch_size=8", "backbone=fusion", "backbone.width=8"]
    text = ["backbone@backbone.parts.text=lstm", "backbone.parts.text.hidden_size=8"]
    image, table = ["backbone@backbone.parts.image=cnn"], ["backbone.parts.table.width=8"]
    return [*data, *text, *image, *table, "strategy=scratch", "backbone.weights=null"]


NO_TABLE = ["backbone.parts.table=null", "data.target.ignore=[voice,age,ward]"]
SOUND = [
    *("data.target.audio=voice", "backbone@backbone.parts.audio=mel_cnn", "backbone.parts.audio.library=timm"),
    *("backbone.parts.audio.name=test_resnet", "backbone.parts.audio.n_mels=32"),
    *("backbone.parts.audio.clip_seconds=0.2", "backbone.parts.audio.sample_rate=8000"),
]
QUIET = "data.target.ignore=[voice]"


def check(answer, found):
    """JSON says what a model says of one sample."""
    assert answer["prediction"] == found.labels[0]
    np.testing.assert_allclose([*answer["probabilities"].values()], found.probabilities[0], atol=1e-6)


def in_base64(file):
    return base64.b64encode(file.read_bytes()).decode()


def test_a_page_takes_a_field_for_each_part(stored, visits, tmp_path, monkeypatch):
    monkeypatch.setattr(Verdict, "withheld", "")
    model = graft.load_run(stored(*visits, QUIET))
    file, row = tmp_path / "scans" / "1.png", {"age": 33, "ward": "old"}
    whole = {"text": "a good day", "image": in_base64(file), "row": row}
    columns = {"note": "a good day", "scan": str(file), **row}

    with serving(model) as page:

        def asked(**content):
            status, _, text = page.ask("POST", "/predict", json.dumps(content).encode(), **JSON)
            return status, json.loads(text)

        status, answer = asked(**whole)
        assert status == 200
        check(answer, model.predict([columns]))
        check(asked(**whole | {"image": None})[1], model.predict([columns | {"scan": None}]))
        check(asked(**whole | {"text": None, "image": None})[1], model.predict([columns | {"note": "", "scan": ""}]))
        named = row | {"scan": str(tmp_path / "scans" / "2.png")}  # a file of this machine, by a field of the row
        check(asked(**whole | {"image": None, "row": named})[1], model.predict([columns | {"scan": None}]))
        for content, said in [
            ({"text": "a", "row": row}, "`image` is not there: give a file in base64, or null"),
            ({"image": None, "row": row}, "`text` is not there: give a text, or null"),
            (whole | {"text": " "}, "`text` is empty"),
            (whole | {"image": "scans/1.png"}, "`image` is no base64"),
            (whole | {"image": 1}, "`image` is no base64"),
            ({"text": "a", "image": None}, "`row` is empty"),
            (whole | {"row": {"age": 1}}, "it has no column ward"),
        ]:
            status, answer = asked(**content)
            assert (status, said in answer["error"]) == (422, True), answer
        status, answer = asked(**whole | {"image": base64.b64encode(b"no picture").decode()})
        assert (status, answer["error"]) == (415, "image cannot be read as an image (cannot identify image file).")

        parts = asked(**whole, explain=True)[1]["explanation"]["parts"]
        assert [*parts] == ["text", "image", "table"]
        assert [word for word, _ in parts["text"]["weights"]] == ["a", "good", "day"]
        assert {name for name, _ in parts["table"]["weights"]} == {"age", "ward"}
        assert parts["image"]["picture"].startswith("data:image/png;base64,")
        left = {part: one["left"] for part, one in parts.items()}
        sure = model.predict([columns]).probabilities.max()
        best = int(model.predict([columns]).probabilities.argmax())
        without = model.predict([columns | {"scan": None}]).probabilities[0, best]
        assert left["image"] == pytest.approx(without / sure, abs=1e-3)
        assert [*asked(**whole | {"image": None}, explain=True)[1]["explanation"]["parts"]] == ["text", "table"]

        form = {"text": "a good day", "row.age": "33", "row.ward": "old"}
        assert page.predict(**form)[1] == asked(**whole | {"image": None})[1]
        status, html = page.post("/", **form, explain="on")
        assert status == 200
        assert all(f"<h3>{part}</h3>" in html for part in ("Text", "Table"))
        assert "<h3>Image</h3>" not in html
        assert 'name="image"' in page.ask("GET", "/")[2]


def test_files_of_one_name_are_one_sample(stored, visits, tmp_path, capsys):
    model = stored(*visits, *NO_TABLE)
    folder = tmp_path / "new" / "ward"
    folder.mkdir(parents=True)
    shutil.copy(tmp_path / "scans" / "1.png", folder / "anna.png")
    shutil.copy(tmp_path / "scans" / "2.png", folder.parent / "ben.png")
    (folder / "anna.txt").write_text("a good day\n")
    (folder / "carl.txt").write_text("a bad day")
    (folder / "dora.txt").write_bytes(b"\xff\xfe\xfa")
    (folder / "notes.md").write_text("")
    output = tmp_path / "said.csv"
    where = [f"run={model}", f"output={output}"]
    assert main(["predict", *where, f"input={folder.parent}"]) == 0
    assert "3 predicted, 1 left out (.md files), 1 could not be read" in capsys.readouterr().err
    with output.open() as file:
        rows = {row["input"]: float(row["p(1)"]) for row in csv.DictReader(file)}
    assert [*rows] == [str(folder.parent / "ben"), str(folder / "anna"), str(folder / "carl")]
    records = [
        {"note": None, "scan": folder.parent / "ben.png"},
        {"note": "a good day", "scan": (folder / "anna.png").read_bytes()},
        {"note": "a bad day", "scan": ""},
    ]
    expected = graft.load_run(model).predict(records).probabilities[:, 1]
    np.testing.assert_allclose([*rows.values()], expected, atol=1e-6)

    Image.new("L", (16, 16)).save(folder / "anna.jpg")
    assert main(["predict", *where, f"input={folder.parent}"]) == 2
    assert "are both the image of" in capsys.readouterr().err
    whole = stored(*visits, QUIET, folder="whole")
    assert main(["predict", f"run={whole}", f"input={folder.parent}"]) == 2
    said = capsys.readouterr().err
    assert "takes table fields beside text, image, and a folder has none" in said
    assert "note, scan, age" in said


def test_explanations_of_parts_stand_beside_the_output(stored, visits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Verdict, "withheld", "")
    model = stored(*visits, QUIET)
    lines = (tmp_path / "visits.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join([lines[0], lines[1], lines[2], lines[4]]))
    asked = ["predict", f"run={model}", f"input={tmp_path / 'few.csv'}", "--explain"]
    assert main(asked) == 2
    assert "--explain writes pictures beside the output" in capsys.readouterr().err
    assert main([*asked, f"output={tmp_path / 'said.csv'}"]) == 0
    with (tmp_path / "said.csv").open() as file:
        explained = [json.loads(row["explanation"]) for row in csv.DictReader(file)]
    assert [[*one] for one in explained] == [["image", "table"], ["text", "image", "table"], ["text", "table"]]
    assert (tmp_path / explained[1]["image"]["picture"]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["onnx", "torch_export", "safetensors"])
def test_four_parts_are_four_groups_of_inputs(stored, visits, tmp_path, form):
    folder = stored(*visits, *SOUND, "backbone.method=gated")
    file = tmp_path / "out" / f"visits{write.ENDINGS[form]}"
    assert "the same on 5 made-up samples" in export(folder, form, file, None, ()).lines[1]
    names = ["text.input_ids", "text.attention_mask", "image", "audio.waveform", "table.numbers", "table.codes"]
    names += ["present"]
    if form == "safetensors":
        about = json.loads(file.with_suffix(".json").read_text())
    elif form == "onnx":
        session = opened(file)
        assert [one.name for one in session.get_inputs()] == names
        about = json.loads(session.get_modelmeta().custom_metadata_map["graft"])
    else:
        about = read(file)[1]
    assert about["parts"] == ["text", "image", "audio", "table"]
    assert [one["name"] for one in about["inputs"]] == names
    assert (about["numeric"], [*about["categorical"]]) == (["age"], ["ward"])
    assert "text: a text split by the tokenizer beside the file" in about["before"]
    assert "`present` is true where a sample has text, image, audio, table, in this order" in about["before"]
    assert file.with_suffix(".vocabulary.json").is_file() == (form != "safetensors")


@pytest.mark.slow
def test_a_run_is_exported_measured_and_looked_into(whole_run, visits, tmp_path, capsys):
    """Compared with the run's own preprocessing on its own test samples, some of which lack a part."""
    folder = whole_run(*visits, QUIET, "backbone.modality_dropout=0.2")
    file = tmp_path / "visits.onnx"
    assert main(["export", f"run={folder}", "format=onnx", f"to={file}"]) == 0
    assert "test samples" in capsys.readouterr().out
    session = opened(file)
    about = json.loads(session.get_modelmeta().custom_metadata_map["graft"])
    pixels = np.array(Image.open(tmp_path / "scans" / "1.png"))[None, :, :, None]
    codes = np.array([[about["categorical"]["ward"].index("old") + 2]])
    vocabulary = json.loads(file.with_suffix(".vocabulary.json").read_text())
    words = [vocabulary["words"].index(word) + vocabulary["first"] for word in ("good", "day")]
    given = {"text.input_ids": np.array([words]), "text.attention_mask": np.ones((1, 2), dtype=np.int64)}
    given |= {"image": pixels, "table.numbers": np.array([[33.0]]), "table.codes": codes}
    model = graft.load_run(folder)
    for there in ([True, True, True], [True, False, True], [False, True, True]):
        record = {"note": "good day" if there[0] else None, "scan": tmp_path / "scans" / "1.png" if there[1] else None}
        found = session.run(None, given | {"present": np.array([there])})[0]
        expected = model.predict([record | {"age": 33, "ward": "old"}])
        assert found.argmax() == expected.probabilities.argmax()
        assert found.max() == pytest.approx(float(expected.confidence[0]), abs=1e-5)
    assert main(["bench", f"run={folder}", f"run={file}", "rounds=1"]) == 0
    assert main(["export", f"run={folder}", "format=onnx", "int8=dynamic", f"to={tmp_path / 'small.onnx'}"]) == 0
    assert main(["export", f"run={folder}", "format=huggingface", f"to={tmp_path / 'folder'}"]) == 2
    assert "fusion (Fusion) is a network of neither" in capsys.readouterr().err

    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "is not looked into" not in page
    for said in ("What training changed", "text.", "image: integrated gradients", "table: integrated gradients"):
        assert said in page, said
    assert "ward: old" in page
