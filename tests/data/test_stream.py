"""Shards that are read as a stream: every sample once, the same order again, damage named, a part in memory."""

import functools
import http.server
import io
import json
import os
import tarfile
import threading
from contextlib import contextmanager

import fsspec
import numpy as np
import pytest
import torch
from lanes import slow
from PIL import Image

from graft.data import stream_loader
from graft.data.module import TransferDataModule
from graft.data.readers import shards as readers
from graft.data.readers.shard_order import pieces_of, positions, shard_order, shuffled
from graft.data.readers.shards import expanded
from graft.data.sources.image_folder import ImageFolder
from graft.data.sources.shards import ImageShards, TextShards
from graft.errors import GraftError

from .test_resume import batches_seen, every_step

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint.*"),  # resuming saves nothing here
]

COUNTS = (5, 7, 3, 9, 1, 12)
TOTAL = sum(COUNTS)
CLASSES = ("cat", "dog")


def picture(number, form="png"):
    """A grey image of one value, the sample's number."""
    content = io.BytesIO()
    Image.fromarray(np.full((8, 8), number, np.uint8)).save(content, form)
    return content.getvalue()


def write_tar(path, samples):
    """A shard of (key, {ending: content})."""
    with tarfile.open(path, "w") as tar:
        for key, files in samples:
            for ending, content in files.items():
                header = tarfile.TarInfo(f"{key}.{ending}")
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))


def numbered(start, count):
    return [(f"s{n:03d}", {"png": picture(n), "cls": CLASSES[n % 2].encode()}) for n in range(start, start + count)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six shards of training samples 0 to 36, and one each of val and test."""
    root, start = tmp_path_factory.mktemp("shards"), 0
    for shard, count in enumerate(COUNTS):
        write_tar(root / f"train-{shard:02d}.tar", numbered(start, count))
        start += count
    for split in ("val", "test"):
        write_tar(root / f"{split}-00.tar", numbered(start, 6))
    return root


def domain(root, **settings):
    return ImageShards(str(root), channels=1, **{"shuffle_buffer": 4} | settings)


def module_of(root, spec, workers=0, batch_size=5, domain_settings=None, **settings):
    data = TransferDataModule(
        domain(root, **domain_settings or {}), batch_size=batch_size, num_workers=workers, **settings
    )
    data.load()
    data.set_input(spec)
    return data


def as_rank(monkeypatch, rank, world):
    for place in ("graft.data.stream_loader", "graft.data.sampling"):
        monkeypatch.setattr(f"{place}.rank_and_world", lambda: (rank, world))


def epoch_of(loader, epoch=0):
    loader.batch_sampler.set_epoch(epoch)
    return list(loader)


def values_in(batches):
    """The numbers that the images are of."""
    return [round(value * 255) for batch in batches for value in batch.inputs[:, 0, 0, 0].tolist()]


@pytest.mark.parametrize(
    ("world", "workers"), [(1, 0), (2, 0), (3, 0), (2, 1), *slow((1, 1), (1, 2), (2, 2), (3, 1), (3, 2))]
)
def test_every_sample_is_drawn_once_an_epoch(shards, spec, monkeypatch, world, workers):
    together, lengths = [], set()
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        loader = module_of(shards, spec, workers).train_dataloader()["target"]
        batches = epoch_of(loader)
        lengths |= {len(batches), len(loader)}
        drawn = values_in(batches)
        assert [label for batch in batches for label in batch.labels] == [value % 2 for value in drawn]
        assert [index for batch in batches for index in batch.indices] == drawn
        if workers:  # which change nothing
            assert drawn == values_in(epoch_of(module_of(shards, spec).train_dataloader()["target"]))
        together += drawn
    assert len(lengths) == 1  # so that no process waits for another
    assert (
        len(together) == len(set(together)) == TOTAL // world * world
    )  # the rest is left over, as with samples at hand


def test_an_epoch_has_an_order_of_its_own_and_the_same_one_again(shards, spec):
    loader = module_of(shards, spec).train_dataloader()["target"]
    first, second = values_in(epoch_of(loader, 0)), values_in(epoch_of(loader, 1))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(TOTAL))
    assert values_in(epoch_of(module_of(shards, spec).train_dataloader()["target"], 1)) == second
    assert values_in(epoch_of(module_of(shards, spec, seed=1).train_dataloader()["target"], 1)) != second


def test_pieces_of_all_processes_are_all_samples_but_the_rest():
    for world in range(1, 9):
        order = [3, 0, 5, 1, 4, 2]
        found = [piece for rank in range(world) for piece in pieces_of(order, COUNTS, rank, world)]
        samples = [(piece.shard, n) for piece in found for n in range(piece.start, piece.stop)]
        assert len(samples) == len(set(samples)) == TOTAL // world * world
        in_a_row = [(shard, n) for shard in order for n in range(COUNTS[shard])]
        assert samples == in_a_row[: len(samples)]


def test_a_buffer_gives_out_everything_once_and_can_skip():
    for size in (0, 1, 2, 7, 50):
        whole = list(shuffled(iter(range(30)), size, 3))
        assert sorted(whole) == list(range(30))
        assert (whole == list(range(30))) == (size < 2)
        for start in (0, 1, 13, 29, 30):
            rest, out = positions(30, size, 3, start)
            assert list(rest) == whole[start:]
            assert {n for n, given in enumerate(out) if given} == set(whole[:start])


def test_a_seed_keeps_its_meaning():
    assert shard_order(8, 7) == [6, 3, 1, 0, 5, 7, 4, 2]
    assert list(shuffled(iter(range(12)), 4, 7)) == [1, 0, 2, 5, 6, 4, 7, 8, 10, 9, 3, 11]


@pytest.mark.parametrize("known", [True, False])
def test_a_pass_can_begin_anywhere(shards, known, monkeypatch):
    if not known:
        monkeypatch.setattr(ImageShards, "_sizes", lambda *_: None)
    stream = domain(shards).load(0).train
    assert stream.length == (TOTAL if known else None)
    for rank in range(3):
        whole = [one.index for one in stream.open(7, rank, 3, 0)]
        for start in (0, 1, 5, len(whole)):
            assert [one.index for one in stream.open(7, rank, 3, start)] == whole[start:]


def test_what_was_given_out_is_not_read_again(tmp_path, monkeypatch):
    for shard in range(10):
        write_tar(tmp_path / f"train-{shard:02d}.tar", numbered(shard * 20, 20))
    for split in ("val", "test"):
        write_tar(tmp_path / f"{split}-00.tar", numbered(200, 4))
    stream = domain(tmp_path).load(0).train
    opened = []
    entries = type(stream.open.func.__self__.place).entries

    def counted(self, name, *rest):
        opened.append(name)
        return entries(self, name, *rest)

    monkeypatch.setattr("graft.data.readers.shards.Place.entries", counted)
    assert len(list(stream.open(0, 0, 1, 170))) == 30
    assert len(opened) == 2  # of ten: the buffer of 4 reaches into one shard before


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("steps", [None, pytest.param(6, marks=pytest.mark.slow)])
def test_a_run_stopped_anywhere_draws_what_the_whole_one_drew(shards, spec, tmp_path, workers, steps):
    def fit(checkpoint=None, resume=None):
        data = module_of(shards, spec, workers, batch_size=8, augment="light", **{"epoch": steps} if steps else {})
        data.views = {"target": ("weak",)}
        data.set_input(spec)
        return batches_seen(data, tmp_path, 2, checkpoint, resume)

    whole = fit(every_step(tmp_path / "ckpt"))
    length = steps or 5
    assert len({digest for *_, digest in whole}) == 2 * length == len(whole)
    for step in (2, length, length + 1):
        assert fit(resume=tmp_path / "ckpt" / f"step{step}.ckpt") == whole[step:]


# What can be wrong


def test_a_damaged_image_is_named_or_left_out_and_counted(shards, tmp_path, spec, capsys):
    link_all(shards, tmp_path)
    broken = numbered(5, 7)
    broken[3][1]["png"] = broken[3][1]["png"][:40]
    broken[5][1]["cls"] = b"cow"
    (tmp_path / "train-01.tar").unlink()
    write_tar(tmp_path / "train-01.tar", broken)
    with pytest.raises(GraftError, match=r"train-01\.tar, s0(08: it cannot be read|10: its label 'cow').*=skip"):
        epoch_of(module_of(tmp_path, spec).train_dataloader()["target"])
    for workers in (0, 1):
        data = module_of(tmp_path, spec, workers, domain_settings={"on_bad_sample": "skip"})
        loader = data.train_dataloader()["target"]
        assert sorted(values_in(epoch_of(loader))) == [n for n in range(TOTAL) if n not in (8, 10)]
        assert sorted(data.skipped["target"]) == ["train-01.tar, s008", "train-01.tar, s010"]
        assert loader.state_dict()["skipped"] == data.skipped["target"]
    assert "left out while training" in capsys.readouterr().out


def test_a_damaged_shard_is_named_before_training_or_its_rest_is_lost(shards, tmp_path, spec):
    link_all(shards, tmp_path)
    whole = (shards / "train-03.tar").read_bytes()
    (tmp_path / "train-03.tar").unlink()
    (tmp_path / "train-03.tar").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GraftError, match=r"train-03\.tar is no whole tar file"):
        domain(tmp_path).load(0)
    (tmp_path / "sizes.json").write_text(json.dumps({f"train-{n:02d}.tar": c for n, c in enumerate(COUNTS)}))
    data = module_of(tmp_path, spec, batch_size=10, domain_settings={"on_bad_sample": "skip"})
    loader = data.train_dataloader()["target"]
    drawn = values_in(epoch_of(loader))
    lost = set(range(TOTAL)) - set(drawn)
    assert lost
    assert lost <= set(range(15, 24))  # of that shard alone
    assert len(data.skipped["target"]) == len(lost)
    assert all("train-03.tar, sample" in place for place in data.skipped["target"])
    with pytest.raises(GraftError, match=r"train-03\.tar.*is lost"):
        epoch_of(module_of(tmp_path, spec).train_dataloader()["target"])


def test_a_header_in_the_middle_that_is_damaged_is_no_end(shards, tmp_path):
    link_all(shards, tmp_path)
    whole = bytearray((shards / "train-05.tar").read_bytes())
    whole[512 * 8 : 512 * 8 + 200] = b"x" * 200
    (tmp_path / "train-05.tar").unlink()
    (tmp_path / "train-05.tar").write_bytes(bytes(whole))
    with pytest.raises(GraftError, match=r"train-05\.tar is no whole tar file"):
        domain(tmp_path).load(0)


def link_all(shards, place):
    for one in shards.iterdir():
        os.link(one, place / one.name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_shards": "no-*.tar"}, r"no shard is called no-\*\.tar.*graft shards"),
        ({"train_shards": "train-{00..07}.tar"}, r"no shard train-06\.tar, train-07\.tar"),
        ({"train_shards": "train-{09..07}.tar"}, "counts down"),
        ({"classes": ["cat", "cow"]}, "its label 'dog' is not one of the classes: cat, cow"),
        ({"label": "txt"}, r"classes are none.*label names another ending"),
        ({"input": "jpg"}, r"it has no file \.jpg"),
        ({"label_as": "index"}, r"data\.target\.classes=\[\.\.\.\], or a file classes\.txt"),
        ({"held_out_gb": 1e-7}, r"held_out_gb=1e-07"),
    ],
)
def test_what_cannot_be_read_is_one_message(shards, settings, message):
    with pytest.raises(GraftError, match=message):
        domain(shards, **settings).load(0)


def test_an_address_whose_package_is_missing_says_what_to_install():
    for address, package in (("s3://bucket/photos", "s3fs"), ("gs://bucket/photos", "gcsfs")):
        with pytest.raises(GraftError, match=f"pip install {package}"):
            ImageShards(address).load(0)
    with pytest.raises(GraftError, match="nothing://"):
        ImageShards("nothing://bucket").load(0)


def test_what_a_stream_has_not_is_refused_by_name(shards, spec):
    data = module_of(shards, spec)
    stream = data.domains["target"].train
    for ask in (
        lambda: stream.inputs,
        lambda: stream.subset(torch.arange(2)),
        lambda: next(data.plain_batches("target", "train")),
        lambda: next(data.drawn_batches("target", 3, 2)),
        lambda: data.plain_train_loader("target"),
    ):
        with pytest.raises(GraftError, match=r"data\.target is read as a stream"):
            ask()
    for settings in ({"labels_per_class": 2}, {"balance": "sampler"}, {"balance": "weights"}, {"label_sets": "open"}):
        with pytest.raises(GraftError, match=rf"data\.{next(iter(settings))}=.*read as a stream"):
            module_of(shards, spec, **settings)


# Places, conventions


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("one.tar", ["one.tar"]),
    ],
)
def test_braces_are_those_of_webdataset(pattern, names):
    assert expanded(pattern) == names


def test_conventions_of_webdataset(tmp_path):
    """Folders in keys, dots in endings, files of others, metadata, indices as labels, labels in JSON."""
    samples = [
        (f"class/a.b/im{n}", {"png": picture(n), "seg.png": b"no", "json": json.dumps({"class": n % 2}).encode()})
        for n in range(8)
    ]
    write_tar(tmp_path / "train-00.tar", [("__meta__", {"json": b"{}"}), *samples])
    for split in ("val", "test"):
        write_tar(tmp_path / f"{split}-00.tar", samples[:2])
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    data = domain(tmp_path, label="json.class", label_as="index").load(0)
    assert data.classes == CLASSES
    drawn = list(data.train.open(0, 0, 1, 0))
    assert sorted((one.place, one.label) for one in drawn) == [
        (f"train-00.tar, class/a.b/im{n}", n % 2) for n in range(8)
    ]
    assert data.val.labels.tolist() == [0, 1]


def test_whole_shards_are_split_off_where_there_are_none_for_val_and_test(shards):
    settings = {"val_shards": "none-*.tar", "test_shards": "none-*.tar"}
    data, again = (domain(shards, **settings).load(3) for _ in range(2))
    assert len(data.train) + len(data.val) + len(data.test) == TOTAL
    assert (data.train.fingerprint, data.val.places) == (again.train.fingerprint, again.val.places)
    assert "val and test of whole shards" in data.report.sentence()


def test_texts_are_read_too(tmp_path):
    for split, count in (("train", 6), ("val", 4), ("test", 4)):
        texts = [(f"t{n}", {"txt": f"word{n} here".encode(), "cls": CLASSES[n % 2].encode()}) for n in range(count)]
        write_tar(tmp_path / f"{split}-00.tar", texts)
    data = TextShards(str(tmp_path)).load(0)
    split, _, bad = data.train.decode(list(data.train.open(0, 0, 1, 0)), True)
    assert not bad
    assert sorted(split.inputs[i] for i in range(len(split))) == [f"word{n} here" for n in range(6)]
    assert list(data.backbone_arguments["texts"]) == [f"word{n} here" for n in range(6)]


def test_shards_of_another_place_are_the_same(shards, spec):
    """memory:// stands for an object store, http:// is a server on this machine."""
    local = values_in(epoch_of(module_of(shards, spec).train_dataloader()["target"]))
    store = fsspec.filesystem("memory")
    for one in shards.iterdir():
        store.pipe_file(f"/bucket/{one.name}", one.read_bytes())
    unknown = domain("memory://bucket").load(0)
    assert unknown.train.length is None
    with pytest.raises(GraftError, match=r"data\.epoch=<steps>|data\.epoch=1000"):
        module_of("memory://bucket", spec)
    data = module_of("memory://bucket", spec, epoch=20)
    loader = data.train_dataloader()["target"]
    assert len(loader) == 20
    drawn = values_in(epoch_of(loader))
    assert len(drawn) == 100
    assert sorted(drawn[:TOTAL]) == list(range(TOTAL))  # a pass, and then another one
    assert data.summary()["target"]["train"] == 100
    index = {**{f"train-{n:02d}.tar": count for n, count in enumerate(COUNTS)}, "val-00.tar": 6, "test-00.tar": 6}
    store.pipe_file("/bucket/sizes.json", json.dumps(index).encode())
    assert values_in(epoch_of(module_of("memory://bucket", spec).train_dataloader()["target"])) == local
    with served(shards, index) as address:
        assert values_in(epoch_of(module_of(address, spec).train_dataloader()["target"])) == local
        with pytest.raises(GraftError, match=r"no shard train-99\.tar"):
            domain(address, train_shards="train-99.tar").load(0)
    store.rm("/bucket", recursive=True)


@contextmanager
def served(folder, index):
    """The folder's files, and an index, behind an address of this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            if self.path == "/sizes.json":
                content = json.dumps(index).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            else:
                super().do_GET()

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_what_fails_behind_an_address_is_tried_again_where_it_failed(shards, monkeypatch):
    store, fails = fsspec.filesystem("memory"), [3, 2, 5]
    store.pipe_file("/flaky/one.tar", (shards / "train-05.tar").read_bytes())
    entries = readers.entries_of

    def flaky(*words, **more):
        left = fails.pop(0) if fails else 1000
        for entry in entries(*words, **more):
            if left == 0:
                raise ConnectionResetError("gone")
            yield entry
            left -= 1

    monkeypatch.setattr(readers, "entries_of", flaky)
    monkeypatch.setattr(readers, "WAITS", (0.0,))
    place = readers.Place("memory://flaky", "data.target.root")
    assert [entry.number for entry in place.entries("one.tar")] == list(range(12))
    fails[:] = [2, 0, 0]
    with pytest.raises(GraftError, match=r"one\.tar cannot be read \(ConnectionResetError: gone\)"):
        list(place.entries("one.tar"))
    store.rm("/flaky", recursive=True)


def test_reading_ahead_passes_errors_on_and_ends_with_its_reader():
    def items():
        yield from range(3)
        raise GraftError("the end")

    reader = stream_loader.ahead(items(), 2)
    assert [next(reader) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(GraftError, match="the end"):
        next(reader)
    endless = stream_loader.ahead(iter(int, 1), 2)
    next(endless)
    endless.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "graft-reader"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path, spec):
    """96 MB of training samples, of which the buffer holds 4 and the queue a few."""
    noise = np.random.default_rng(0)
    for shard in range(12):
        images = noise.integers(0, 256, (8, 1000, 1000), dtype=np.uint8)
        samples = []
        for number, image in enumerate(images):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "bmp")
            samples.append((f"{shard}-{number}", {"bmp": content.getvalue(), "cls": CLASSES[number % 2].encode()}))
        write_tar(tmp_path / f"train-{shard:02d}.tar", samples)
    for split in ("val", "test"):
        write_tar(tmp_path / f"{split}-00.tar", numbered(0, 4))
    loader = module_of(tmp_path, spec, batch_size=2).train_dataloader()["target"]
    assert rss() > 0
    for _ in epoch_of(loader):
        break
    before, most = rss(), 0
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        for _ in loader:
            most = max(most, rss())
    assert most - before < 40 * 2**20


def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# To shards and back


def test_a_folder_written_as_shards_trains_on_the_same_samples(photos, tmp_path, spec):
    from graft.data.readers.shards import Place
    from graft.data.shard_writer import write_domain

    folder = ImageFolder(str(photos), channels=1).load(0)
    written = list(write_domain(folder, Place(str(tmp_path / "out"), "to"), 4000, 0))
    assert len([one for one in written if one.name.startswith("train")]) > 2
    data = domain(tmp_path / "out").load(0)
    assert data.classes == folder.classes
    for name in ("val", "test"):
        one, other = getattr(data, name), getattr(folder, name)
        assert torch.equal(one.labels, other.labels)
        assert all(torch.equal(one.inputs[i], other.inputs[i]) for i in range(len(one)))
    split, _, _ = data.train.decode(list(data.train.open(0, 0, 1, 0)), True)
    found = sorted((split.inputs[i].numpy().tobytes(), int(split.labels[i])) for i in range(len(split)))
    train = folder.train
    assert found == sorted((train.inputs[i].numpy().tobytes(), int(train.labels[i])) for i in range(len(train)))
    with pytest.raises(GraftError, match="is not empty"):
        next(write_domain(folder, Place(str(tmp_path / "out"), "to"), 4000, 0))
