"""Random tables and text files, broken in ways that nobody thought of: one GraftError, or data. Never another error."""

import os
import random

import pytest
from lanes import slow

from graft.data.sources.table_file import TableFile
from graft.data.sources.text_file import TextFile
from graft.errors import GraftError

CELLS = (
    *("", " ", "0", "-1", "1.5", "1,5", "1e999", "-inf", "nan", "NA", "?", "٣", "1_000", "0x10", "12:30", "2024-02-30"),
    *(
        "a",
        "A",
        "a|b",
        "ä",
        "\ufeff",
        "\u2028",
        "\x00",
        "\x1b[31m",
        "😀",
        "é",
        '"',
        '""',
        '"a',
        "'",
        "=1+1",
        "\\",
        "\t",
    ),
    *("true", "null", "{}", '{"text": 1}', "[1, 2]", "x" * 3000, "9" * 400, "\r", "a\nb", '"a\nb"', "/etc/passwd"),
)
ENDS = (*["\n"] * 4, "\r\n", "\r", "\n\n")


def content(draw: random.Random) -> bytes:
    """Rows of cells of which few are as they should be; sometimes cut, or with bytes of no encoding."""
    delimiter = draw.choice([*[","] * 6, "\t", ";"])
    columns = draw.choice(
        [*["text,label,more"] * 4, "text,label", "label", "text,text,label", "", "text,label,"]
    ).split(",")
    wild = draw.choice([0.0, 0.005, 0.01, 0.02, 0.3, 1.0])

    def row(number: int) -> str:
        good = [f"word{number} more", "ab"[number % 2], str(number)]
        size = len(columns) + draw.choice([-1, 1]) if draw.random() < wild / 4 else len(columns)
        return delimiter.join(draw.choice(CELLS) if draw.random() < wild else good[n % 3] for n in range(max(size, 0)))

    lines = [delimiter.join(columns), *map(row, range(draw.choice([0, 1, 2, *[60] * 5])))]
    data = draw.choice(ENDS).join(lines).encode(draw.choice([*["utf-8"] * 6, "utf-8-sig", "utf-16"]))
    if draw.random() < 0.2:
        place = draw.randrange(len(data) + 1)
        data = draw.choice([data[:place], data[:place] + b"\xff\xfe\x00" + data[place:]])
    return data


@pytest.mark.parametrize("count", [150, *slow(1500)])
@pytest.mark.parametrize("modality", ["table", "text"])
def test_a_random_file_is_data_or_one_error(tmp_path, modality, count):
    seed = int.from_bytes(os.urandom(4), "big") if count > 150 else 0  # shown where it fails
    draw = random.Random(seed)
    loaded = 0
    for number in range(count):
        path = tmp_path / draw.choice([*["t.csv"] * 6, "t.tsv", "t.txt", "t.jsonl"])
        path.write_bytes(content(draw))
        settings = {"on_bad_sample": draw.choice(["error", "skip"]), "label": draw.choice(["label", "label", 0])}
        kind = TableFile if modality == "table" else TextFile
        try:
            data = kind(str(path), **settings).load(0)
        except GraftError as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}, file {number}, {settings}: {path.read_bytes()[:500]!r}") from error
        else:
            message = ""
            assert len(data.train) > 0
            loaded += 1
        assert "\x1b" not in message, (seed, number)  # what a terminal would obey
        path.unlink()
    assert loaded > count / 50
