"""CLIP's contrast with captions: against its formula, found by the samples' indices, and what is no caption."""

from dataclasses import replace

import pytest
import torch
import toy

from graft.backbones.lenet import lenet
from graft.cli.notebook import check_composed
from graft.data.captions import captions_of
from graft.data.samples import DomainData, Split
from graft.errors import GraftError
from graft.heads.base import HeadContext
from graft.heads.class_names import ClassNamesHead
from graft.heads.towers.base import Tower
from graft.heads.towers.characters import LONGEST, Characters
from graft.inputs.base import DomainBatch
from graft.probe import retrieval
from graft.probe.retrieval import chance, recalls
from graft.terms.base import TrainStep
from graft.terms.contrastive.clip import CLIP, contrast_of_pairs
from tests.processes import in_each_of_two

TEXTS = ["a red cat", "two dogs", "a red  cat ", "an ox", "a sea"]
SEEN = torch.tensor([3, 0, 2, 1])  # of which the middle two have one caption


class Lengths(Tower):
    """A tower that stays as it is, and counts how often it is asked."""

    learns = False
    asked = 0

    def forward(self, texts):
        self.asked += 1
        return torch.tensor([[len(text), ord(text[0]), ord(text[-1]), 1.0] for text in texts])


def domain_of(texts=TEXTS, column="caption", places=None, test=("one", "two")):
    """A domain whose splits have a column."""
    splits = [Split(torch.zeros(len(one), 1), None, "", places, columns={column: one}) for one in (texts, test)]
    return DomainData("pairs", splits[0], splits[1], splits[1], ("cat", "dog"), 1, "")


def prepared(tower, domain=None, dtype=torch.float64):
    """The term on the source's captions, and its head with such a tower."""
    torch.manual_seed(0)
    head = ClassNamesHead(HeadContext(6, 2, ("cat", "dog")), tower(4)).to(dtype)
    term = CLIP(domain="source", text="caption")
    context = toy.term_context(lenet(channels=1, size=16))
    term.prepare(replace(context, heads={"source": head}, domains={"source": domain or domain_of()}))
    return term.to(dtype), head


def step_of(features, indices):
    return TrainStep(
        {"source": DomainBatch(torch.zeros(len(indices), 1), None, indices)}, {"source": features}, {}, 0.0
    )


def unit(vectors):
    return vectors / vectors.square().sum(1, keepdim=True).sqrt()


@pytest.mark.parametrize("kind", [Characters, Lengths])
def test_the_contrast_is_infonce_with_each_samples_own_caption(kind):
    term, head = prepared(kind)
    (tower,) = head._fixed
    features = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    captions = [" ".join(TEXTS[index].split()) for index in SEEN.tolist()]
    asked = getattr(tower, "asked", 0)
    value = term(step_of(features, SEEN))
    assert getattr(tower, "asked", 0) == asked  # once, before training
    samples, texts, losses = head.embed(features), unit(tower(captions).double()), []
    for one, other in ((samples, texts), (texts, samples)):
        for place in range(4):
            scores = torch.stack([head.scale * one[place] @ vector for vector in other])
            own = [number for number in range(4) if captions[number] == captions[place]]
            losses.append(scores.logsumexp(0) - scores[own].mean())
    torch.testing.assert_close(value, torch.stack(losses).mean(), rtol=1e-6, atol=0)
    value.backward()
    trained = {name for name, parameter in head.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, _ in head.named_parameters()} - {"rows"}
    assert not {*term.state_dict()}  # computed again where a run resumes


def test_processes_number_texts_alike_although_each_sees_others(tmp_path):
    def work():
        rank = torch.distributed.get_rank()
        term, _ = prepared(Characters)
        features = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return term(step_of(features[2 * rank : 2 * rank + 2], SEEN[2 * rank : 2 * rank + 2])).detach()

    _, head = prepared(Characters)
    features = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    both = in_each_of_two(work, tmp_path)
    torch.testing.assert_close(both[0], both[1])
    vectors = torch.cat([head.embed(part) for part in features.split(2)])  # its BatchNorm sees a process's own
    texts = head.vectors_of([" ".join(TEXTS[index].split()) for index in SEEN.tolist()])
    expected = contrast_of_pairs(vectors, texts, head.scale, torch.tensor([3, 0, 0, 1]))
    torch.testing.assert_close(both[0], expected.detach())


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (domain_of(column="text"), r"term.clip.text=caption: data.source has no such column\. .*: text\."),
        (
            replace(domain_of(), train=Split(torch.zeros(3, 1), None, "")),
            "has no columns beside .*image_file or",
        ),
        (domain_of(["a", " ", None], places=["row 1", "row 2", "row 3"]), r"2 of 3 train samples .*\(row 2, row 3\)"),
        (domain_of(["a cat", "a  cat"]), "all 2 training samples of data.source have the text 'a cat'"),
        (domain_of(["['a', 'b']", "['c']"]), "each value is a list.*explode"),
        (domain_of(test=("", "one")), "1 of 2 test samples"),
    ],
)
def test_what_is_no_caption_is_named_before_training(domain, message):
    with pytest.raises(GraftError, match=message):
        prepared(Characters, domain)


def test_a_message_names_the_key_of_pretraining():
    context = replace(
        toy.term_context(lenet(channels=1, size=16)), key="pretrain.term", domains={"source": domain_of()}
    )
    head = ClassNamesHead(HeadContext(6, 2, ("cat", "dog")), Lengths(4))
    with pytest.raises(
        GraftError, match=r"^pretrain\.term\.clip\.text=text: .*Set pretrain\.term\.clip\.text=<column>"
    ):
        CLIP(domain="source", text="text").check(replace(context, heads={"source": head}))


def test_only_training_texts_have_to_differ():
    assert captions_of(domain_of(test=("one", "one")), "source", "test", "caption", "key") == ["one", "one"]


def test_of_a_long_text_the_beginning_counts():
    tower = Characters(4, 5)
    long = "ab" * LONGEST
    torch.testing.assert_close(tower([long]), tower([long[:LONGEST]]), rtol=0, atol=0)
    assert not torch.equal(tower([long]), tower([long[: LONGEST - 1]]))


def test_recall_counts_queries_whose_own_are_among_the_first(monkeypatch):
    monkeypatch.setattr(retrieval, "AT_ONCE", 7)
    random = torch.Generator().manual_seed(0)
    queries, found = (unit(torch.randn(count, 4, generator=random)) for count in (30, 12))
    right = torch.rand(30, 12, generator=random) < 0.1
    right[torch.arange(30), torch.randint(12, (30,), generator=random)] = True
    computed = recalls(queries, found, right)
    for k in (1, 5, 10):
        nearest = (queries @ found.T).argsort(dim=1, descending=True)[:, :k].tolist()
        hits = [any(right[query, place] for place in places) for query, places in enumerate(nearest)]
        assert computed["recall"][str(k)] == pytest.approx(sum(hits) / 30)
    same = recalls(torch.ones(30, 4), torch.ones(12, 4), right)
    assert same["recall"]["1"] == 0  # who says the same of all finds nothing
    assert chance(12, 2, 1) == pytest.approx(2 / 12)
    assert chance(4, 2, 2) == pytest.approx(1 - (2 / 4) * (1 / 3))
    assert chance(4, 1, 5) == 1


PAIRS = [
    *("data=image_folder", "data.target.root=photos", "data/domain@data.source=image_file", "data.source.file=p.csv"),
    *("data.source.label=null", "head=class_names"),
]


def test_what_needs_labels_is_refused_of_a_source_without():
    overrides = [
        *("term=[clip,mcd]", "term.clip.domain=source", "pretrain=clip", "backbone.weights=source"),
        *("pretrain.objective.alpha=1", "objective.alpha=0.5", "selection=source_val", "data.source_classes=[a,b]"),
        *("save.ledger=3", "data.label_sets=partial", "+task@source_task=multiclass", "data.source.classes=[c]"),
    ]
    with pytest.raises(GraftError) as error:
        check_composed([*PAIRS, *overrides])
    for message in (
        *("name a column of texts (term.clip.text=<column>)", "(pretrain.term.clip.text=<column>)"),
        *("weighs the source's loss", "use selection=target_val or last", "use data.source_classes=null"),
        *("use save.ledger=null", "use data.label_sets=closed", "use source_task=null", "use data.source.classes=null"),
        "`term.mcd`: it learns from the source's labels; leave it out",
        "which learns labels: use pretrain=clip pretrain.term.clip.text=<column>",
    ):
        assert message in str(error.value)


def test_a_target_needs_labels_and_pairs_are_source_data():
    data = ["data=image_folder", "data/domain@data.target=image_file", "data.target.file=t.csv", PAIRS[-1]]
    words = ["data.target.label=null", "pretrain=clip", "pretrain.term.clip.text=a", "backbone.weights=target"]
    with pytest.raises(GraftError) as error:
        check_composed([*data, *words])
    assert "a target is tested by its labels" in str(error.value)
    assert "give its pairs as source data" in str(error.value)


def test_captions_need_no_labels_of_the_target():
    words = ["term=[clip]", "term.clip.domain=source", "term.clip.text=caption", "objective.alpha=null"]
    words += ["data.target_setting=unsupervised", "data.labels_per_class=null", "selection=last"]
    check_composed([*PAIRS, *words, "backbone.weights=null", "strategy=scratch"])
