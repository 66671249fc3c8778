"""Random tables and text files, broken in ways that nobody thought of: one GraftError, or data. Never another error."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies
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
COLUMNS = (
    *[["text", "label", "more"]] * 4,
    ["text", "label"],
    ["label"],
    ["text", "text", "label"],
    [""],
    ["text", ""],
)
ROWS = 60
some = strategies.sampled_from
FILES = some([*["t.csv"] * 6, "t.tsv", "t.txt", "t.jsonl"])
KEYS = strategies.fixed_dictionaries({"on_bad_sample": some(["error", "skip"]), "label": some(["label", "label", 0])})
WILD = strategies.tuples(
    strategies.integers(0, ROWS - 1), strategies.integers(0, 3), some(CELLS) | strategies.text(max_size=8)
)


@strategies.composite
def contents(draw: strategies.DrawFn) -> bytes:
    """Rows of cells of which some are not as they should be; sometimes cut, or with bytes of no encoding."""
    columns, number = draw(some(COLUMNS)), draw(some([*[ROWS] * 5, 0, 1, 2]))
    rows = [[f"word{n} more", "ab"[n % 2], str(n)][: len(columns)] for n in range(number)]
    for place, column, cell in draw(strategies.lists(WILD, max_size=6)):
        if place < number:
            rows[place][column : column + 1] = [cell]  # a cell more behind the last one
    delimiter = draw(some([*[","] * 6, "\t", ";"]))
    lines = [delimiter.join(cells) for cells in (columns, *rows)]
    encoding = draw(some([*["utf-8"] * 6, "utf-8-sig", "utf-16"]))
    data = draw(some([*["\n"] * 4, "\r\n", "\r", "\n\n"])).join(lines).encode(encoding, "surrogatepass")
    if draw(some([False] * 4 + [True])):
        place = draw(strategies.integers(0, len(data)))
        data = draw(some([data[:place], data[:place] + b"\xff\xfe\x00" + data[place:]]))
    return data


def message_of(source: type[TableFile] | type[TextFile], path: Path, content: bytes, keys: dict[str, Any]) -> str:
    """What refuses a file, empty where it gives data; AssertionError for anything but that."""
    path.write_bytes(content)
    try:
        assert len(source(str(path), **keys).load(0).train) > 0
    except GraftError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{keys}: {content[:500]!r}") from error
    finally:
        path.unlink()
    return ""


@pytest.mark.parametrize("files", [60, *slow(1500)])
@pytest.mark.parametrize("source", [TableFile, TextFile])
def test_a_random_file_is_data_or_one_error(tmp_path, source, files):
    """CI draws the same files each time, the night new ones; hypothesis prints the smallest that fails."""
    messages = []

    @given(name=FILES, content=contents(), keys=KEYS)
    @settings(max_examples=files, deadline=None, database=None, derandomize=files == 60)
    def check(name, content, keys):
        messages.append(message_of(source, tmp_path / name, content, keys))
        assert "\x1b" not in messages[-1]  # what a terminal would obey

    check()
    assert messages.count("") > files // 100  # some are data
