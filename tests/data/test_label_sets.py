"""Classes that one side lacks: matched by name whatever their order, counted as unknown, or left out on purpose."""

import pytest
import torch

from graft.data.join import check_same_classes
from graft.data.label_sets import in_source_classes
from graft.data.module import TransferDataModule
from graft.data.samples import DomainData, Split
from graft.data.sources.digits import Digits
from graft.data.sources.glyphs import Glyphs
from graft.errors import GraftError


def domain(name, classes, labels=None):
    """A domain of one sample a class, in their order."""
    labels = torch.arange(len(classes)) if labels is None else labels
    splits = {part: Split(torch.zeros(len(labels), 1, 8, 8), labels, f"{name} {part}") for part in ("val", "test")}
    train = Split(torch.zeros(len(labels), 1, 8, 8), None, f"{name} train")
    return DomainData(name=name, train=train, classes=tuple(classes), channels=1, fingerprint=name, **splits)


SOURCE = domain("source", ["dog", "cat", "cow", "owl"])


def test_a_partial_targets_classes_are_the_sources_by_name():
    target = in_source_classes(domain("target", ["owl", "cat"]), SOURCE, "partial")
    assert target.classes == SOURCE.classes
    assert target.label_set == ("owl", "cat")
    assert target.test.labels.tolist() == [3, 1]
    assert target.train.labels is None
    assert target.notes == ("partial label sets: the target has no dog, cow",)


def test_what_the_source_lacks_is_one_class_more_and_the_target_may_lack_some_too():
    target = in_source_classes(domain("target", ["yak", "cow", "ant", "dog"]), SOURCE, "open")
    assert target.classes == SOURCE.classes
    assert target.val.labels.tolist() == [4, 2, 4, 0]
    assert "yak, ant are not in the source, and count as unknown" in target.notes[0]


@pytest.mark.parametrize(
    ("sets", "classes", "message"),
    [
        ("partial", ["cat", "yak"], r"partial: the source has no yak\. Use data\.label_sets=open task=open_set"),
        ("partial", ["owl", "cow", "cat", "dog"], r"lacks no class of the source\. Use data\.label_sets=closed"),
        ("open", ["cat", "dog"], r"open: the source has all classes of the target\. Use data\.label_sets=partial"),
        ("open", ["yak", "ant"], r"source \(dog, cat, cow, owl\) and target \(yak, ant\) have no class in common"),
    ],
)
def test_label_sets_that_are_not_as_the_key_says_are_refused_with_the_one_that_is(sets, classes, message):
    with pytest.raises(GraftError, match=message):
        in_source_classes(domain("target", classes), SOURCE, sets)


def test_several_labels_a_sample_and_a_class_called_unknown_are_refused():
    several = domain("target", ["cat", "dog"], torch.ones(2, 2))
    with pytest.raises(GraftError, match="both sides need one class a sample"):
        in_source_classes(several, SOURCE, "partial")
    named = domain("source", ["cat", "unknown"])
    with pytest.raises(GraftError, match="the source has a class 'unknown'"):
        in_source_classes(domain("target", ["cat", "dog"]), named, "open")


def test_unlike_domains_are_refused_with_the_key_that_takes_them():
    with pytest.raises(GraftError, match=r"pen has no owl.*leave a domain out\. Or data\.label_sets=partial"):
        check_same_classes(
            {"pen": ("cat",), "ink": ("cat", "owl")}, "data.target_domain", " Or data.label_sets=partial"
        )


def loaded(**settings):
    data = TransferDataModule(Digits(), Glyphs(samples=80), target_setting="unsupervised", **settings)
    data.load()
    return data


def test_samples_of_other_classes_are_left_out_after_the_split_and_counted():
    whole, some = loaded(), loaded(target_classes=[7, "1", 4], label_sets="partial")
    before, after = (data.domains["target"] for data in (whole, some))
    kept = torch.isin(before.test.labels, torch.tensor([1, 4, 7]))
    assert torch.equal(after.test.labels, before.test.labels[kept])
    assert torch.equal(after.test.inputs, before.test.inputs[kept])
    assert after.report.left_out == {"of other classes": 1797 - sum(after.report.used.values())}
    assert after.test.fingerprint != before.test.fingerprint
    assert some.same_classes
    assert after.label_set == ("1", "4", "7")


def test_a_source_keeps_the_order_of_its_classes_whatever_that_of_the_key():
    source = loaded(source_classes=[3, 1, 2], label_sets="open").domains["source"]
    assert source.classes == ("1", "2", "3")
    assert source.train.labels.unique().tolist() == [0, 1, 2]
    assert source.train.labels[:3].tolist() == [0, 1, 2]  # of 0 to 9 in turn


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (["1", "x"], r"data\.source_classes: there is no class 'x'\. The classes are 0, 1, 2"),
        (["1"], r"data\.source_classes=\[1\]: at least 2 classes are needed"),
    ],
)
def test_classes_that_cannot_be_kept_are_refused(kept, message):
    with pytest.raises(GraftError, match=message):
        loaded(source_classes=kept)
