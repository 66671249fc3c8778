"""Several domains as one side: splits of their own, joined samples that know their source, and how they are drawn."""

import numpy as np
import pytest
import soundfile
import torch
from hydra import initialize_config_dir
from PIL import Image
from test_config import CONF, VERSION_BASE, composed, problems, problems_of

from graft.data.domain_names import names_there, wrong_names
from graft.data.domains_module import DomainsDataModule
from graft.data.module import TransferDataModule
from graft.data.readers.images import decode
from graft.data.sources.audio_folder import AudioFolder
from graft.data.sources.image_folder import ImageFolder
from graft.data.sources.several import SeveralDomains
from graft.data.sources.table_file import TableFile
from graft.data.sources.text_file import TextFile
from graft.errors import GraftError
from graft.inputs.audio.transform import SpeechTransform
from tests.conftest import tone

SPLITS = ("train", "val", "test")
SIZES = {"ink": 12, "oil": 20, "pen": 8}  # images of each class


@pytest.fixture
def root(tmp_path):
    """A folder of three domains of 2 classes."""
    random = np.random.default_rng(0)
    for domain, number in SIZES.items():
        for name in ("cat", "dog"):
            (tmp_path / "art" / domain / name).mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "art" / domain / name / f"{i}.png")
    (tmp_path / "art" / "README.txt").write_text("no domain")
    return tmp_path / "art"


def several(root, names, **options):
    return SeveralDomains(ImageFolder(f"{root}/{{domain}}"), names, **options)


def data_of(root, names, **options):
    settings = {"batch_size": 10, "epoch": "source", "seed": 0}
    target = options.pop("target", "pen")
    source = several(root, names, **{k: options.pop(k) for k in ("sampling", "without") if k in options})
    data = DomainsDataModule(
        root=str(root), target_domain=target, target=ImageFolder(f"{root}/{target}"), source=source,
        **settings | options,
    )  # fmt: skip
    data.load()
    return data


def test_joined_domains_keep_the_columns_that_all_have(tmp_path):
    for name, columns in (("one", "text,label,page"), ("two", "text,label,page,shelf")):
        rows = [f"{name} {number},{'ab'[number % 2]},{name}{number}{',x' * (name == 'two')}" for number in range(20)]
        (tmp_path / f"{name}.csv").write_text("\n".join([columns, *rows]))
    source = SeveralDomains(TextFile(f"{tmp_path}/{{domain}}.csv"), ["one", "two"])
    source.key = "data.source"
    for split in (source.load(0).train, source.load(0).test):
        assert {*split.columns} == {"page"}
        assert [split.inputs[index].replace(" ", "") for index in range(len(split))] == split.columns["page"]


def test_a_domains_splits_do_not_depend_on_the_others(root):
    alone = ImageFolder(f"{root}/ink").load(3)
    for names in (["ink"], ["ink", "oil"], ["pen", "oil", "ink"]):
        data = several(root, names).load(3)
        for name in SPLITS:
            split = getattr(data, name)
            own = [place for place in split.places if "/ink/" in place]
            assert own == list(getattr(alone, name).places)
            if names == ["ink"]:  # so that what is computed of it is kept once, whichever side it is on
                assert split.fingerprint == getattr(alone, name).fingerprint


def test_every_sample_keeps_its_image_its_label_and_its_source(root):
    data = several(root, ["pen", "oil"]).load(0)
    assert (data.name, data.sources, data.classes) == ("pen + oil", ("pen", "oil"), ("cat", "dog"))
    assert data.report.found == sum(data.report.used.values()) == 2 * (8 + 20)
    assert any(note.startswith("pen: 16 files found, 16 used") for note in data.notes)
    subset = data.train.subset(torch.arange(len(data.train) - 1, 2, -3))
    for split in (data.train, data.val, data.test, subset):
        for number, place in enumerate(split.places):
            *_, domain, label, _ = place.split("/")
            assert data.sources[split.sources[number]] == domain
            assert data.classes[split.labels[number]] == label
            assert torch.equal(split.inputs[number], decode(place))


def test_batches_hold_the_images_of_their_indices(root, spec):
    data = data_of(root, ["oil", "ink"])
    data.set_input(spec)
    split = data.domains["source"].train
    data.train_domains = ("source",)
    for batches in data.train_batches():
        batch = batches["source"]
        for image, index in zip(batch.inputs, batch.indices, strict=True):
            expected = data._eval_transform([decode(split.places[index])])[0]
            torch.testing.assert_close(image, expected)
        assert torch.equal(batch.labels, split.labels[batch.indices])


def drawn(data, epochs=200):
    """Shares of sources, classes and both together in the training draws of many epochs."""
    split, batches = data.domains["source"].train, data._batches("source")
    indices = []
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        indices += [one for step in range(len(batches)) for one in batches.indices(step, 0).tolist()]
    cells = split.sources[indices] * 2 + split.labels[indices]
    return cells.bincount(minlength=4) / len(cells)


def test_sources_are_drawn_as_they_come_or_equally_often(root):
    oil_and_ink = drawn(data_of(root, ["oil", "ink"])).view(2, 2).sum(1)
    assert oil_and_ink[0] == pytest.approx(20 / 32, abs=0.02)
    equal = data_of(root, ["oil", "ink"], sampling="equal")
    assert drawn(equal).view(2, 2).sum(1)[0] == pytest.approx(0.5, abs=0.02)
    by_size, equal = data_of(root, ["oil", "ink"]).domains["source"], equal.domains["source"]
    assert by_size.fingerprint != equal.fingerprint  # pretraining on them gives other weights
    assert by_size.train.fingerprint == equal.train.fingerprint  # features of them are the same


def test_equal_sources_and_equal_classes_go_together(root):
    for i in range(5):  # more cats than dogs, in one of the domains
        Image.fromarray(np.full((6, 7, 3), 40 * i, dtype=np.uint8)).save(root / "oil" / "cat" / f"more{i}.png")
    cells = drawn(data_of(root, ["oil", "ink"], sampling="equal", balance="sampler"))
    assert cells.tolist() == pytest.approx([0.25] * 4, abs=0.02)
    sampler = drawn(data_of(root, ["oil", "ink"], balance="sampler")).view(2, 2).sum(0)
    assert sampler.tolist() == pytest.approx([0.5, 0.5], abs=0.02)


def test_without_names_all_that_are_there_but_the_targets_count(root):
    assert names_there(root / "{domain}") == ["ink", "oil", "pen"]
    assert several(root, None, without="oil").load(0).sources == ("ink", "pen")
    with pytest.raises(GraftError, match=r"data\.target\.names: there is no 'foo' at .*There are ink, oil, pen"):
        several(root, ["ink", "foo"]).load(0)
    with pytest.raises(GraftError, match="oil is the target's domain too"):
        several(root, ["ink", "oil"], without="oil").load(0)
    with pytest.raises(GraftError, match=r"none of its keys holds \{domain\}"):
        SeveralDomains(ImageFolder(f"{root}/ink"), ["ink"]).load(0)


def test_a_class_that_a_domain_lacks_is_named(root):
    (root / "ink" / "eel").mkdir()
    for i in range(8):
        Image.fromarray(np.full((6, 7, 3), 30 * i, dtype=np.uint8)).save(root / "ink" / "eel" / f"{i}.png")
    with pytest.raises(GraftError, match=r"data\.source: .*different classes: oil has no eel\."):
        data_of(root, ["ink", "oil"])
    with pytest.raises(GraftError, match=r"data\.target_domain: .*different classes: pen has no eel\."):
        data_of(root, ["ink"])
    with pytest.raises(GraftError, match=r"data\.target_domain: .*different classes: oil\+pen has no eel\."):
        data_of(root, ["oil", "pen"], target="ink")


def test_texts_are_joined(tmp_path):
    words = {"films": ("good film", "bad film"), "shops": ("good shop", "bad shop")}
    for name, (good, bad) in words.items():
        rows = [f"{good} {i}\tyes\n{bad} {i}\tno\n" for i in range(10)]
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "".join(rows))
    data = SeveralDomains(TextFile(str(tmp_path / "{domain}.tsv"))).load(0)
    assert (data.sources, data.modality) == (("films", "shops"), "text")
    for text, label, source in zip(data.train.inputs, data.train.labels, data.train.sources, strict=True):
        assert text.startswith(words[data.sources[source]][1 - int(label)])
    assert sorted(data.backbone_arguments["texts"]) == sorted(data.train.inputs)


def test_recordings_are_joined(tmp_path):
    for domain, hertz in (("room", 300), ("street", 900)):
        for name in ("high", "low"):
            (tmp_path / domain / name).mkdir(parents=True)
            for i in range(6):
                pitch = hertz * (2 if name == "high" else 1) + i
                soundfile.write(tmp_path / domain / name / f"{i}.wav", tone(pitch), 8000)
    data = SeveralDomains(AudioFolder(str(tmp_path / "{domain}"))).load(0)
    front = type("Front", (), {"frequency_dim": None})()
    spec = type("Spec", (), {"sample_rate": 8000, "samples": 100, "front": front})()
    waves = SpeechTransform(spec).prepare(data.train, None)
    for index, place in enumerate(data.train.places):
        assert f"/{data.sources[data.train.sources[index]]}/{data.classes[data.train.labels[index]]}/" in place
        torch.testing.assert_close(waves.load(index), torch.from_numpy(soundfile.read(place)[0]).float())


def test_tables_are_refused(tmp_path):
    for name in ("north", "south"):
        rows = [f"{i},{i % 3},{'yes' if i % 2 else 'no'}" for i in range(20)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,dose,outcome", *rows]))
    with pytest.raises(GraftError, match=r"several sources cannot be table data.*Put all rows in one file"):
        SeveralDomains(TableFile(str(tmp_path / "{domain}.csv"), label="outcome")).load(0)


@pytest.mark.parametrize(
    ("sources", "target", "message"),
    [
        (["ink"], "pin", "`data.target_domain=pin`: there is no such domain; {root} has ink, oil, pen"),
        (["ink", "oi"], "pen", "`data.sources=[ink,oi]`: there is no domain oi; {root} has ink, oil, pen"),
        (["ink", "pen"], "pen", "`data.sources`: pen is the target's domain too, whose samples would be on both sides; "
         "leave it out"),
        (["ink", "ink"], "pen", "`data.sources`: ink is there twice; name each source once"),
        ([], "pen", "`data.sources`: the list is empty; name one domain at least, or null for all but the target's"),
        (None, None, "`data.target_domain` has to be given: data.target_domain=<one of the domains>; {root} has ink, "
         "oil, pen"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_one_message(root, sources, target, message):
    assert [*wrong_names(str(root), sources, target)] == [message.format(root=root)]


def test_wrong_names_are_told_with_all_other_mistakes_before_anything_is_read(root):
    base = ["data=domains", "data.sources=[ink,oi]", "objective.alpha=1"]
    found = problems(
        *base, f"data.root={root}", "data.target_domain=pin", "term=[bss]", "training.validate_every_epochs=7"
    )
    assert [line.split("`")[1] for line in found] == [
        "data.target_domain=pin", "data.sources=[ink,oi]", "training.validate_every_epochs=7",
    ]  # fmt: skip
    assert [line.split(":")[0] for line in problems(*base)] == [
        "`data.root` has to be given", "`data.target_domain` has to be given",
    ]  # fmt: skip


@pytest.mark.slow
def test_terms_over_sources_need_several_and_features_that_train(root):
    base = ["data=domains", f"data.root={root}", "data.target_domain=pen", "objective.alpha=1"]
    found = problems(*base, "data.sources=[ink]", "term=[groupdro,vrex]")
    assert [line.split(":")[0] for line in found] == [f"`term={name}` with one source" for name in ("groupdro", "vrex")]
    assert problems(*base, "data.sources=[ink,oil]", "term=[groupdro,vrex]") == []
    frozen = problems(*base, "term=[source_coral]", "strategy=frozen", "backbone.weights=imagenet")
    assert [line.split(":")[0] for line in frozen] == ["`term=source_coral` with `strategy=frozen head=linear`"]
    digits = problems("term=[groupdro]", "objective.alpha=1")  # glyphs are one source
    assert [line.split(":")[0] for line in digits] == ["`term=groupdro` with one source"]


def test_the_config_finds_the_folders_by_the_names(root):
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        cfg, choices = composed("data=domains", f"data.root={root}", "data.target_domain=oil")
        assert problems_of(cfg, choices) == []
    assert cfg.data.target.root == f"{root}/oil"
    assert (cfg.data.source.names, cfg.data.source.without) == (None, "oil")
    assert cfg.data.source.domain.root == f"{root}/{{domain}}"


def test_a_folder_that_is_not_there(root):
    with pytest.raises(GraftError, match=r"data\.root=nowhere: no such folder\."):
        DomainsDataModule(root="nowhere", target_domain="pen", target=ImageFolder("nowhere/pen")).load()


def test_features_are_kept_under_the_same_code_alone_and_in_a_sweep(root, spec):
    from graft.data.shared import share_domains

    alone = TransferDataModule(ImageFolder(f"{root}/pen"), several(root, ["ink", "oil"]))
    shared = TransferDataModule(ImageFolder(f"{root}/pen"), several(root, ["ink", "oil"]))
    share_domains(shared, {"target": {"root": "pen"}, "source": {"names": ["ink", "oil"]}})
    for data in (alone, shared):
        data.set_input(spec)
    assert [type(one) for one in alone.parts("source")] == [type(one) for one in shared.parts("source")]
    assert isinstance(shared.parts("source")[1], ImageFolder)
