import bz2
import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from graft.backbones.vocabulary import Vocabulary, words_of
from graft.data.module import TransferDataModule
from graft.data.sources.text_file import TextFile
from graft.errors import GraftError

ROWS = [(f"film number {n} is {word}", label) for n in range(10) for word, label in (("good", "1"), ("bad", "0"))]


def write(file, rows=ROWS, separator="\t", header="text\tlabel\n"):
    file.write_text(header.replace("\t", separator) + "".join(f"{text}{separator}{label}\n" for text, label in rows))
    return str(file)


def texts(split):
    return [split.inputs[index] for index in range(len(split))]


def pairs(*splits):
    return sorted(pair for split in splits for pair in zip(texts(split), split.labels.tolist(), strict=True))


def expected(rows=ROWS, classes=("0", "1")):
    return sorted((text, classes.index(label)) for text, label in rows)


def load(file, **options):
    return TextFile(str(file), **options).load(0)


@pytest.mark.parametrize("ending", ["tsv", "txt", "csv", "jsonl", "csv.bz2"])
def test_every_format_gives_the_same_samples(tmp_path, ending):
    file = tmp_path / f"reviews.{ending}"
    if ending == "jsonl":
        lines = [json.dumps({"id": n, "label": int(label), "text": text}) for n, (text, label) in enumerate(ROWS)]
        file.write_text("\n".join(lines))
    else:
        write(file, separator="," if "csv" in ending else "\t")
    if ending == "csv.bz2":
        file.write_bytes(bz2.compress(file.read_bytes()))
    data = load(file)
    assert (data.modality, data.name, data.classes, data.channels) == ("text", "reviews", ("0", "1"), None)
    assert [len(split) for split in (data.train, data.val, data.test)] == [14, 3, 3]
    assert pairs(data.train, data.val, data.test) == expected()


def test_columns_by_number_with_and_without_a_header(tmp_path):
    numbered = {"text": 0, "label": 1}
    with_header = load(write(tmp_path / "a.tsv"), **numbered)
    without = load(write(tmp_path / "b.tsv", header=""), header=False, **numbered)
    from_the_end = load(tmp_path / "b.tsv", header=False, text=-2, label=-1)
    assert pairs(with_header.train) == pairs(without.train) == pairs(from_the_end.train)
    assert with_header.fingerprint == without.fingerprint


def test_tsv_has_no_quotes_and_csv_has(tmp_path):
    rows = [*ROWS, ('"one" quote " too many', "1")]
    data = load(write(tmp_path / "a.tsv", rows))
    assert pairs(data.train, data.val, data.test) == expected(rows)
    (tmp_path / "b.csv").write_text('text,label\n"good, ""very""\ngood",1\nbad,0\nworse,0\nbetter,1\nbest,1\nworst,0\n')
    data = load(tmp_path / "b.csv", val_fraction=0.25, test_fraction=0.25)
    assert 'good, "very"\ngood' in texts(data.train) + texts(data.val) + texts(data.test)


def test_a_text_may_be_long(tmp_path):
    rows = [*ROWS, ("very " * 10**5 + "long", "1")]
    data = load(write(tmp_path / "a.csv", rows, separator=","))
    assert pairs(data.train, data.val, data.test) == expected(rows)


def test_official_parts_stay_whole_and_shared_texts_are_noted(tmp_path):
    train = write(tmp_path / "train.tsv")
    test = write(tmp_path / "test.tsv", [*ROWS[:3], ("something new", "0")])
    data = load(train, test_file=test)
    assert texts(data.test) == [text for text, _ in ROWS[:3]] + ["something new"]
    assert [len(data.train), len(data.val)] == [17, 3]
    assert data.notes == ("3 texts of test are in train too",)


def test_copies_stay_on_one_side_and_are_noted(tmp_path):
    copies = [(text, "0") for text, _ in ROWS[:6]]
    file = write(tmp_path / "a.tsv", [*ROWS, *copies])
    for seed in range(3):
        data = TextFile(file, val_fraction=0.3, test_fraction=0.3).load(seed)
        sides = [set(texts(split)) for split in (data.train, data.val, data.test)]
        assert sum(len(side) for side in sides) == len(set.union(*sides)) == 20
        assert data.notes == ("6 texts occur more than once, 3 of them with different labels",)


def test_classes_are_in_order_of_value_and_can_be_chosen(tmp_path):
    rows = [(f"{stars} stars, {n}", stars) for stars in ("2", "10", "1") for n in range(8)]
    file = write(tmp_path / "a.tsv", rows)
    assert load(file).classes == ("1", "2", "10")
    with pytest.raises(
        GraftError, match=r"row 2: its label '2' is not one of data\.target\.classes: 10, 1; .*and 5 more"
    ):
        load(file, classes=["10", "1"])
    data = load(file, classes=["10", "1"], on_bad_sample="skip")
    assert data.classes == ("10", "1")
    assert data.notes[0].startswith(f"skipped: 8 rows ({file}, row 2: its label '2' is not one of")
    assert pairs(data.train, data.val, data.test) == expected([r for r in rows if r[1] != "2"], ("10", "1"))


BAD_LINES = {
    b"only a text\n": "it has 1 values where there are 2 columns",
    b" \t1\n": "its text is empty",
    b"\n": "the line is empty",
    b"caf\xe9\t1\n": "it is not UTF-8 behind 'caf'",
    b"\xe9t\xe9\t1\n": "it is not UTF-8 from its beginning",
    b"a text\twith a tab\t1\n": "it has 3 values where there are 2 columns",
    b"a text\tnan\n": "its label is missing",
    b"a text\t\n": "its label is missing",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=BAD_LINES.values())
def test_a_bad_row_is_named_or_skipped(tmp_path, line):
    file = tmp_path / "a.tsv"
    write(file)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:4], line, line, *lines[4:]]))
    with pytest.raises(
        GraftError, match=rf"data\.target: .*a\.tsv, row 5: {BAD_LINES[line]}.*; .*row 6: {BAD_LINES[line]}"
    ):
        load(file)
    data = load(file, on_bad_sample="skip")
    assert pairs(data.train, data.val, data.test) == expected()
    [note] = data.notes
    assert note.startswith(f"skipped: 2 rows ({file}, row 5: {BAD_LINES[line]}")


def test_a_vocabulary_has_the_training_words_of_both_sides_and_no_others(tmp_path):
    target, source = (
        write(tmp_path / f"{side}.tsv", [(f"{side}{n} {label}", label) for n in range(20) for label in ("0", "1")])
        for side in ("target", "source")
    )
    test = write(tmp_path / "test.tsv", [("unseen 0", "0")])
    data = TransferDataModule(TextFile(target), TextFile(source, test_file=test), labels_per_class=2)
    data.load()
    found = Vocabulary(data.backbone_arguments["texts"]).words
    trained = [*TextFile(target).load(0).train.inputs, *TextFile(source, test_file=test).load(0).train.inputs]
    assert set(found) == {word for text in trained for word in words_of(text)}
    assert 2 < len(found) < 2 + 40
    assert "unseen" not in found


def test_a_label_that_train_has_not_is_named_or_skipped(tmp_path):
    train, test = write(tmp_path / "train.tsv"), write(tmp_path / "test.tsv", [*ROWS[:2], ("so so", "2")])
    with pytest.raises(GraftError, match=r"test\.tsv, row 4: its label '2' is not one of train's classes: 0, 1"):
        load(train, test_file=test)
    assert len(load(train, test_file=test, on_bad_sample="skip").test) == 2


def test_lines_that_are_no_json_objects(tmp_path):
    file = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    bad = {
        "[1, 2]": "it is no JSON object",
        '{"text": "a", ': "it is no JSON object",
        "": "it is no JSON object",
        '{"label": 1}': "it has no column text",
        '{"text": "a", "label": null}': r"its label is missing \(None\)",
        '{"text": "a", "label": NaN}': r"its label is missing \(nan\)",
        '{"text": 3, "label": 1}': "its text is no text but 3",
        '{"text": "a\\ud800", "label": 1}': "it is not UTF-8 behind 'a'",
    }
    for line, problem in bad.items():
        file.write_text("\n".join([*lines, line, line, "", '{"text": "so so", "label": 1.0}', "", ""]))
        with pytest.raises(GraftError, match=rf"a\.jsonl, row 21: {problem}.*row 22: {problem}"):
            load(file)
        assert len(load(file, on_bad_sample="skip").train) == 15


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, r"data\.target\.file=.*a\.tsv: the file is empty"),
        ("text\tlabel\n", {}, r"a\.tsv: the file is empty"),
        ("text\tlabel\n\t1\n", {"on_bad_sample": "skip"}, "no rows that can be used"),
        ("text\tlabel\na\t1\nb\t1\n", {}, "every label is '1', but at least 2 classes"),
        ("text\tlabel\na\t1\nb\t0\n", {"label": "stars"}, r"data\.target\.label=stars: .*it has text, label"),
        ("text\tlabel\na\t1\nb\t0\n", {"text": 2}, r"data\.target\.text=2: .*row 1, has no such column"),
        (
            "text\tlabel\na\t1\nb\t0\n",
            {"classes": ["0", "1", "2"]},
            r"data\.target\.classes: no training sample has the label '2', one of 3 classes\. Its labels are 0, 1",
        ),
        ("text\tlabel\na\t1\nb\t0\n", {}, "2 texts are too few to split off a .* split"),
        (
            "text\tlabel\nA\t1\nb\t0\n".encode("utf-16"),
            {},
            r"a\.tsv: the file is not UTF-8; try data\.target\.encoding=utf-16",
        ),
        (
            "café\tlabel\na\t1\nb\t0\n".encode("latin-1"),
            {},
            r"row 1 is not UTF-8 behind 'caf' \(try data\.target\.encoding=latin-1\)",
        ),
        (
            'text,label\na,1\n"b,0\nc,1\n',
            {"format": "csv"},
            r"a\.tsv, row 3: this is no CSV \(a quote opens here and nothing closes it\)",
        ),
        ('text,label\na,1\nb,0\n"c" d,1\n', {"format": "csv"}, r"a\.tsv, row 4: this is no CSV"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, options, message):
    (tmp_path / "a.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(GraftError, match=message):
        load(tmp_path / "a.tsv", **options)


def test_files_that_are_not_there_or_of_unknown_format(tmp_path):
    with pytest.raises(GraftError, match=r"data\.target\.val_file=nothing\.tsv: no such file"):
        load(write(tmp_path / "a.tsv"), val_file="nothing.tsv")
    with pytest.raises(GraftError, match=r"data\.target\.file=.*: that is a folder"):
        load(tmp_path)
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress((tmp_path / "a.tsv").read_bytes())[:-20])
    with pytest.raises(GraftError, match=r"a\.tsv\.gz: it cannot be read \("):
        load(tmp_path / "a.tsv.gz")
    with pytest.raises(GraftError, match=r"data\.target\.file=pip:graft-nothing/a\.csv: the package is not installed"):
        load("pip:graft-nothing/a.csv")
    with pytest.raises(GraftError, match=r"a\.data: what the file holds .*data\.target\.format=tsv"):
        load(write(tmp_path / "a.data"))
    assert len(load(write(tmp_path / "a.data"), format="tsv").train) == 14


def test_content_decides_the_fingerprint(tmp_path):
    one, other = write(tmp_path / "a.tsv"), write(tmp_path / "b.tsv", [*ROWS[:-1], (ROWS[-1][0], "1")])
    assert load(one).fingerprint != load(other).fingerprint
    assert TextFile(one).load(0).train.fingerprint != TextFile(one).load(1).train.fingerprint


def test_a_quote_that_swallows_rows_is_a_bad_row(tmp_path):
    rows = [*ROWS[:5], ('"open', "1"), *ROWS[5:9], ('closed"', "0"), *ROWS[9:]]
    file = write(tmp_path / "a.csv", rows, separator=",")
    with pytest.raises(GraftError, match=r"1 of 17 rows cannot be used .*row 7: a quote opens here and closes 5 rows"):
        load(file)
    poem = [*ROWS, ('"roses are red,\nviolets are blue, 1\nand so on"', "1")]
    data = load(write(tmp_path / "poem.csv", poem, separator=","))
    assert sum(map(len, (data.train, data.val, data.test))) == 21


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_other_line_ends_give_the_same_samples(tmp_path, ends, ending):
    file = tmp_path / f"a.{ending}"
    if ending == "jsonl":
        file.write_text("\n".join(json.dumps({"text": text, "label": label}) for text, label in ROWS))
    else:
        write(file, separator="," if ending == "csv" else "\t")
    file.write_bytes(file.read_bytes().replace(b"\n", ends.encode()))
    data = load(file)
    assert pairs(data.train, data.val, data.test) == expected()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_other_encodings_are_read_with_the_key_that_the_message_names(tmp_path, encoding):
    rows = [(f"caf\xe9 {text}" + ("\u2026" if encoding == "cp1252" else ""), label) for text, label in ROWS]
    file = tmp_path / "a.tsv"
    file.write_bytes(Path(write(tmp_path / "b.tsv", rows)).read_text().encode(encoding))
    options = {}
    if encoding != "utf-8-sig":
        with pytest.raises(GraftError, match=r"not UTF-8[:;] try data\.target\.encoding=") as error:
            load(file, on_bad_sample="skip")
        options["encoding"] = str(error.value).rpartition("=")[2]
        assert options["encoding"] == encoding
    data = load(file, **options)
    assert pairs(data.train, data.val, data.test) == expected(rows)


def test_damage_that_is_no_broken_line(tmp_path):
    file = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    bad = {
        "[" * 100_000: "it is nested too deeply",
        '{"text": "a\\u0000b", "label": 1}': "it holds a NUL byte",
        '{"text": "a", "label": ["0", "1"]}': r"its label is a list, .*label_kind=multilabel task=multilabel",
        '{"text": "a", "label": {"a": 1}}': "its label is no label but",
    }
    for line, problem in bad.items():
        file.write_text("\n".join([*lines, line]))
        with pytest.raises(GraftError, match=rf"row 21: {problem}"):
            load(file)
        assert len(load(file, on_bad_sample="skip").report.skipped) == 1


def test_other_separators_and_columns_that_a_split_names(tmp_path):
    file = write(tmp_path / "a.csv", separator=";")
    with pytest.raises(GraftError, match=r"""name what separates columns: "data\.target\.delimiter=';'\""""):
        load(file)
    assert len(load(file, delimiter=";").train) == 14
    with pytest.raises(GraftError, match=r"split\.group=author: there is no such column\. Columns: text, label"):
        load(file, delimiter=";", split={"group": "author"})
    with pytest.raises(GraftError, match="has two columns 'text'"):
        load(write(tmp_path / "b.csv", separator=",", header="text\ttext\n"))


def test_numbers_and_several_labels(tmp_path):
    file = write(tmp_path / "a.tsv", [(text, f"{n}.5") for n, (text, _) in enumerate(ROWS)])
    data = load(file, label_kind="numbers")
    found = torch.cat([split.labels for split in (data.train, data.val, data.test)])
    assert sorted(found.tolist()) == [n + 0.5 for n in range(20)]
    file = tmp_path / "a.jsonl"
    rows = [{"text": text, "label": ["good"] if label == "1" else []} for text, label in ROWS]
    file.write_text("\n".join(map(json.dumps, rows)))
    data = load(file, label_kind="multilabel")
    assert (data.classes, data.train.labels.shape) == (("good",), (14, 1))
    assert "10 texts have none of the labels" in data.notes


DATA = Path(os.environ.get("GRAFT_DATA", "../shared/data"))


@pytest.mark.real_data
def test_real_sentences():
    if not (DATA / "sst2").is_dir() or not (DATA / "sentiment_uci").is_dir():
        pytest.skip(f"no sentences in {DATA}; set GRAFT_DATA")
    columns = {"header": False, "text": 0, "label": 1}
    splits = {f"{split}_file": str(DATA / "sst2" / f"{name}.tsv") for split, name in (("val", "dev"), ("test", "test"))}
    data = load(DATA / "sst2" / "train.tsv", **splits, **columns)
    assert data.name == "sst2"
    assert [len(split) for split in (data.train, data.val, data.test)] == [6920, 872, 1821]
    for file in (DATA / "sentiment_uci").glob("*.txt"):
        data = load(file, **columns)
        assert sum(len(split) for split in (data.train, data.val, data.test)) == 1000
