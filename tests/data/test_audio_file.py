import pytest

from graft.data.sources.audio_file import AudioFile
from graft.errors import GraftError
from tests.data.test_audio_folder import names

HALVES = {"val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def table(tones):
    """A CSV beside the tones, with their paths and labels."""
    lines = [f"{file.name},{file.name.partition('_')[0]}" for file in sorted(tones.glob("*.wav"))]
    file = tones / "tones.csv"
    file.write_text("\n".join(["path,label", *lines]) + "\n")
    return file


def load(file, **options):
    return AudioFile(str(file), **{**HALVES, **options}).load(0)


def test_rows_are_recordings(table, tmp_path):
    data = load(table)
    assert (data.modality, data.name, data.classes) == ("audio", "tones", ("high", "low"))
    assert [len(split) for split in (data.train, data.val, data.test)] == [12, 4, 4]
    elsewhere = tmp_path / "elsewhere.tsv"
    lines = table.read_text().splitlines()[1:]
    elsewhere.write_text("\n".join(line.replace(",", "\t") for line in lines))
    moved = load(elsewhere, folder=str(table.parent), header=False, path=0, label=-1)
    assert names(moved.train) == names(data.train)
    assert moved.fingerprint == data.fingerprint


def test_recordings_without_labels_keep_their_other_columns(table):
    lines = [f"{line.partition(',')[0]},a {line.partition(',')[2]} tone" for line in table.read_text().splitlines()[1:]]
    table.write_text("\n".join(["path,caption", *lines]) + "\n")
    data = load(table, label=None)
    assert data.classes is None
    for split in (data.train, data.val, data.test):
        assert split.labels is None
        assert {*split.columns} == {"caption"}
        assert all(
            text.split()[1] in name for text, name in zip(sorted(split.columns["caption"]), names(split), strict=True)
        )


def test_official_parts_have_files_of_their_own(table):
    header, *lines = table.read_text().splitlines()
    test = table.with_name("test.csv")
    test.write_text("\n".join([header, *lines[::2]]))
    table.write_text("\n".join([header, *lines[1::2]]))
    data = load(table, test_file=str(test))
    assert [len(split) for split in (data.train, data.val, data.test)] == [8, 2, 10]


BAD_ROWS = {
    "nothing.wav,low": ".*nothing.wav: there is no such file",
    ",low": "its path is missing",
    "low_ann_0.wav,": "its label is missing",
    "low_ann_0.wav,nan": "its label is missing",
    "low_ann_0.wav": "1 values where there are 2 columns",
    "empty.wav,low": ".*empty.wav: the file is empty",
}


@pytest.mark.parametrize("line", BAD_ROWS)
def test_a_bad_row_is_named_or_skipped(table, line):
    (table.parent / "empty.wav").write_bytes(b"")
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:3], line, *lines[3:]]))
    with pytest.raises(GraftError, match=rf"data\.target: .*tones\.csv, row 4: {BAD_ROWS[line]}.*on_bad_sample=skip"):
        load(table)
    data = load(table, on_bad_sample="skip")
    assert sum(len(split) for split in (data.train, data.val, data.test)) == 20
    assert data.notes[0].startswith(f"skipped: 1 rows ({table}, row 4: ")


def test_bytes_of_another_encoding_are_named(table):
    table.write_bytes(table.read_bytes() + "caf\xe9.wav,low\n".encode("latin-1"))
    with pytest.raises(GraftError, match=r"row 22: not readable as utf-8; try data\.target\.encoding=latin-1"):
        load(table)


def test_a_label_that_train_has_not(table):
    test = table.with_name("test.csv")
    test.write_text("path,label\nlow_ann_0.wav,low\nhigh_ann_0.wav,shrill\n")
    with pytest.raises(
        GraftError, match=r"test\.csv, row 3: its label 'shrill' is not one of train's classes: high, low"
    ):
        load(table, test_file=str(test))
    assert len(load(table, test_file=str(test), on_bad_sample="skip").test) == 1


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, r"data\.target\.file=.*tones\.csv: the file has no row"),
        ("path,label\n", {}, r"the file has no row"),
        (None, {"label": "word"}, r"data\.target\.label=word: .*tones\.csv has no such column\. Columns: path, label"),
        (None, {"path": 7}, r"data\.target\.path=7: .* has no such column"),
        (None, {"folder": "nowhere"}, r"data\.target\.folder=nowhere: no such folder"),
        ("path,label\nlow_ann_0.wav,a\nlow_ann_1.wav,a\n", {}, "every label is 'a', but at least 2 classes"),
        ("path,label\nno.wav,a\n", {"on_bad_sample": "skip"}, "no rows that can be used"),
    ],
)
def test_tables_that_cannot_be_used(table, content, options, message):
    if content is not None:
        table.write_text(content)
    with pytest.raises(GraftError, match=message):
        load(table, **options)


def test_numbers_several_labels_and_groups(table):
    lines = table.read_text().splitlines()[1:]
    rows = [f"{line.partition(',')[0]},{n}.5,{'odd|' if n % 2 else ''}all,p{n % 5}" for n, line in enumerate(lines)]
    table.write_text("\n".join(["path,pitch,tags,person", *rows]))
    data = load(table, label="pitch", label_kind="numbers", split={"group": "person"})
    assert data.classes is None
    assert len(data.test) == 4  # one person, who has four recordings
    data = load(table, label="tags", label_kind="multilabel")
    assert (data.classes, data.train.labels.shape[1]) == (("all", "odd"), 2)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(GraftError, match=r"data\.target\.file=.*no\.csv: no such file"):
        load(tmp_path / "no.csv")
