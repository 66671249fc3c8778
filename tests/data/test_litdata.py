"""LitData's chunks are read as shards are: every sample once, on from anywhere, what is not read is named."""

import json
import struct

import pyarrow
import pytest

from graft.errors import GraftError

from .test_resume import batches_seen, every_step
from .test_stream import CLASSES, domain, epoch_of, module_of, picture, values_in

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*"),  # resuming saves nothing here
]

KEYS = {"train_shards": "chunk-*.bin", "input": "image", "label": "class"}
KINDS = {"index": "int", "image": "bytes", "class": "str"}


def sample(number):
    return {"index": number, "image": picture(number), "class": CLASSES[number % 2]}


def field(value):
    return struct.pack("<q", value) if isinstance(value, int) else value if isinstance(value, bytes) else value.encode()


def write_chunks(root, samples, size=5, kinds=None, **config):
    """What LitData's BinaryWriter writes of dictionaries."""
    root.mkdir(exist_ok=True)
    chunks = []
    for number, start in enumerate(range(0, len(samples), size)):
        stored = []
        for one in samples[start : start + size]:
            fields = [field(value) for value in one.values()]
            stored.append(struct.pack(f"<{len(fields)}I", *map(len, fields)) + b"".join(fields))
        offsets = [4 * (len(stored) + 2)]
        for one in stored:
            offsets.append(offsets[-1] + len(one))
        content = struct.pack(f"<{len(offsets) + 1}I", len(stored), *offsets) + b"".join(stored)
        chunks.append({"filename": f"chunk-0-{number}.bin", "chunk_size": len(stored)})
        (root / chunks[-1]["filename"]).write_bytes(content)
    kinds = kinds or KINDS
    tree = {"type": "builtins.dict", "context": json.dumps([*kinds]), "children_spec": []}
    config = {"compression": None, "data_format": [*kinds.values()], "data_spec": json.dumps([1, tree])} | config
    (root / "index.json").write_text(json.dumps({"chunks": chunks, "config": config}))


@pytest.fixture
def chunks(tmp_path):
    write_chunks(tmp_path / "chunks", [sample(number) for number in range(37)])
    return tmp_path / "chunks"


def test_every_sample_is_drawn_once_with_its_label(chunks, spec):
    data = module_of(chunks, spec, domain_settings=KEYS)
    batches = epoch_of(data.train_dataloader()["target"])
    drawn = values_in(batches)
    assert [label for batch in batches for label in batch.labels] == [value % 2 for value in drawn]
    held = [round(float(one.flatten()[0]) * 255) for split in ("val", "test") for one in values_of(data, split)]
    assert sorted(drawn + held) == list(range(37))


def values_of(data, split):
    return [one for batch in data.eval_loader("target", split) for one in batch["target"].inputs[:, 0]]


def test_a_fit_goes_on_in_the_middle_of_an_epoch(chunks, spec, tmp_path):
    def fit(checkpoint=None, resume=None):
        return batches_seen(module_of(chunks, spec, domain_settings=KEYS), tmp_path, 2, checkpoint, resume)

    whole = fit(every_step(tmp_path / "ckpt"))
    assert fit(resume=tmp_path / "ckpt" / "step2.ckpt") == whole[2:]


def test_folders_of_chunks_are_splits(tmp_path):
    for split, first, number in (("train", 0, 12), ("val", 12, 4), ("test", 16, 4)):
        write_chunks(tmp_path / split, [sample(one) for one in range(first, first + number)])
    patterns = {f"{split}_shards": f"{split}/*.bin" for split in ("train", "val", "test")}
    loaded = domain(tmp_path, **KEYS | patterns).load(0)
    assert (len(loaded.train), len(loaded.val), len(loaded.test)) == (12, 4, 4)
    assert len(list(loaded.train.open(0, 0, 1, 5))) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compression": "zstd"}, "chunks with compression are not read"),
        ({"data_format": ["int", "bytes"]}, "make each a flat dictionary"),
        ({"data_format": ["int", "pickle", "str"]}, "cannot be decoded|is empty|no image"),
    ],
)
def test_what_is_not_read_is_named(tmp_path, change, message):
    write_chunks(tmp_path / "chunks", [sample(number) for number in range(20)], **change)
    with pytest.raises(GraftError, match=message):
        domain(tmp_path / "chunks", **KEYS).load(0)


def test_a_chunk_that_is_cut_off_is_named(chunks):
    for file in chunks.glob("*.bin"):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(GraftError, match="ends in the middle of a sample"):
        domain(chunks, **KEYS).load(0)


def test_rows_of_arrow_are_read(chunks):
    """As newer versions of LitData store dictionaries: all offsets are alike, a file of Arrow is the chunk's end."""
    before = all_of(chunks)
    for file in chunks.glob("*.bin"):
        first = 5 * int(file.stem.rpartition("-")[2])
        rows = [sample(number) for number in range(first, min(first + 5, 37))]
        header, table, sink = 4 * (len(rows) + 2), pyarrow.Table.from_pylist(rows), pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
        arrow = sink.getvalue().to_pybytes()
        offsets = struct.pack(f"<{len(rows) + 2}I", len(rows), *[header] * (len(rows) + 1))
        file.write_bytes(offsets + arrow + struct.pack("<I", len(arrow)) + b"LDARW01\0")
    assert all_of(chunks) == before


def all_of(root):
    loaded = domain(root, **KEYS).load(0)
    return {(one.index, one.content, one.label) for start in (0, 9) for one in loaded.train.open(0, 0, 1, start)}


def test_chunks_that_litdata_wrote_are_read(tmp_path):
    writer = pytest.importorskip("litdata.streaming.writer").BinaryWriter(str(tmp_path), chunk_size=5)
    for number in range(37):
        writer[number] = sample(number)
    writer.done()
    writer.merge(1)
    assert {(content, label) for _, content, label in all_of(tmp_path)} <= {(picture(n), n % 2) for n in range(37)}
    assert len(all_of(tmp_path)) == len(domain(tmp_path, **KEYS).load(0).train) > 20
