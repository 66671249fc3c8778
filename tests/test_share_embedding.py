"""What learned to write moves to what tells classes apart: its encoder or its embedding alone, jointly too."""

import pytest
import torch
from hydra import compose, initialize_config_dir

import graft
from graft.backbones.contract import check_backbone
from graft.backbones.recurrent import RecurrentBackbone
from graft.cli.hydra_versions import VERSION_BASE
from graft.config import check
from graft.errors import GraftError
from graft.training.source_encoder import add_source_encoder, source_encoder
from graft.weights.embedding import load_embedding
from tests.small_run import CONF, train_in

SMALL = [
    *("data=text", "data/domain@data.target=text_file", "backbone=lstm", "trainer=cpu", "training.threads=1"),
    *("logger=csv", "data.batch_size=8", "training.epochs=1", "pretrain.epochs=1", "selection=last"),
    *("backbone.embedding_size=6", "backbone.hidden_size=4", "backbone.max_length=12", "optimizer.lr=0.01"),
]
WRITES = [
    *("data/domain@data.source=text_to_text", "+task@source_task=seq2seq", "+head@source_head=gru_decoder"),
    *("source_head.width=8", "source_task.max_length=4"),
]


def encoder_of(texts, name="lstm", embedding=6, hidden=4):
    torch.manual_seed(len(texts[0]))
    return RecurrentBackbone(name, texts, embedding_size=embedding, hidden_size=hidden, dropout=0.0)


def saved(backbone, tmp_path):
    file = tmp_path / "weights.pt"
    torch.save({f"backbone.{name}": value for name, value in backbone.state_dict().items()}, file)
    return str(file)


def vectors(backbone):
    return dict(zip(backbone.tokenizer.words, backbone.network.embedding.weight.detach()[2:], strict=True))


# Taking it over


def test_vectors_of_common_words_move_into_another_encoder(tmp_path):
    source, target = encoder_of(["oil prices rise"]), encoder_of(["prices of tea rise"], "gru", hidden=5)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    report = load_embedding(target, saved(source, tmp_path))
    own, learned = vectors(target), vectors(source)
    for word in ("prices", "rise"):
        assert torch.equal(own[word], learned[word])
    for word in ("of", "tea"):
        assert torch.equal(own[word], before["network.embedding.weight"][2 + target.tokenizer.words.index(word)])
    others = [name for name in before if not name.endswith("embedding.weight")]
    assert all(torch.equal(before[name], target.state_dict()[name]) for name in others)
    assert report.adapted == ["vectors of 2 of 4 words: the others are new to the source"]
    assert report.matched == 1
    assert len(report.missing) == 8, "of a GRU in two directions"


def test_an_embedding_that_does_not_fit_is_named(tmp_path):
    file = saved(encoder_of(["oil prices"]), tmp_path)
    with pytest.raises(GraftError, match=r"have 6 values, and this network's 9. Set backbone.embedding_size=6"):
        load_embedding(encoder_of(["oil prices"], embedding=9), file)
    (tmp_path / "other").mkdir()
    torch.save({"linear.weight": torch.zeros(3, 3)}, tmp_path / "other" / "weights.pt")
    with pytest.raises(GraftError, match="it has no embedding of tokens"):
        load_embedding(encoder_of(["oil prices"]), str(tmp_path / "other" / "weights.pt"))


# Sharing it


def test_domains_share_the_embedding_and_nothing_else():
    backbone = encoder_of(["oil prices rise"]).eval()
    x = backbone.example_inputs(2)
    target = backbone(x)
    add_source_encoder(backbone)
    check_backbone(backbone)  # every parameter is in one stage
    assert torch.equal(backbone(x), target)
    with source_encoder(backbone):
        source = backbone(x)
        assert not torch.equal(source, target)
        assert not torch.equal(backbone.tokens(x).values, backbone.network.embedding(x["input_ids"]))
    assert torch.equal(backbone(x), target)
    source.sum().backward()
    network, other = backbone.network, backbone.source_network
    assert other.embedding is network.embedding
    assert network.embedding.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.layers.parameters())
    assert all(parameter.grad is not None for parameter in other.layers.parameters())


# Runs


@pytest.fixture
def files(tmp_path):
    news = [f"prices of item {n} {verb},{verb} {n % 3}" for n in range(24) for verb in ("rise", "fall")]
    (tmp_path / "news.csv").write_text("text,title\n" + "\n".join(news) + "\n")
    reviews = [f"item {n} is {word}\t{label}" for n in range(20) for label, word in enumerate(("bad", "good"))]
    (tmp_path / "reviews.tsv").write_text("text\tlabel\n" + "\n".join(reviews) + "\n")
    return [f"data.target.file={tmp_path / 'reviews.tsv'}", f"data.source.file={tmp_path / 'news.csv'}"]


def test_an_encoder_that_wrote_titles_reads_reviews(files, tmp_path):
    found = train_in(tmp_path, *SMALL, *WRITES, *files, "backbone.weights=source")
    assert found["status"] == "done"
    assert found["weights"]["matched"] == found["weights"]["total"] > 1
    assert found["metrics"]["test/source/perplexity"] > 1
    assert found["metrics"]["test/target/acc"] >= 0
    moved = train_in(tmp_path, *SMALL, *WRITES, *files, "backbone.weights=source", "backbone.share=embedding",
                     folder="moved", cache=tmp_path)  # fmt: skip
    assert moved["weights"]["matched"] == 1
    assert moved["weights"]["source"] == "source (cached)", "one pretraining serves both"


@pytest.mark.slow
def test_another_encoder_takes_a_runs_vectors(files, tmp_path):
    train_in(tmp_path, *SMALL, files[0], "strategy=scratch")
    other = train_in(tmp_path, *SMALL, files[0], "backbone=gru", "backbone.hidden_size=3", "backbone.share=embedding",
                     f"backbone.weights={tmp_path / 'run'}", folder="gru")  # fmt: skip
    assert other["weights"]["matched"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["scratch", "full"])
def test_joint_training_shares_the_embedding_alone(files, tmp_path, strategy):
    weights = [] if strategy == "scratch" else [f"backbone.weights={tmp_path / 'first'}"]
    if weights:
        train_in(tmp_path, *SMALL, files[0], "strategy=scratch", folder="first")
    found = train_in(tmp_path, *SMALL, *WRITES, *files, "backbone.share=embedding", f"strategy={strategy}", *weights,
                     "objective.alpha=0.5", "training.epochs=2")  # fmt: skip
    assert found["status"] == "done"
    assert "test/source/rougeL" in found["metrics"]
    model = graft.load_run(tmp_path / "run")
    assert not hasattr(model.backbone, "source_network")
    assert len(model.predict(["item 1 is good"]).labels) == 1


def test_what_sharing_cannot_be_meant_with_is_named():
    def problems(*overrides):
        file = ["data.target.file=reviews.tsv", "backbone.share=embedding", "++paths.run_dir=run"]
        with pytest.raises(GraftError) as caught, initialize_config_dir(CONF, **VERSION_BASE):
            check(compose("train", overrides=[*SMALL, *file, *overrides]))
        return str(caught.value)

    source = ["data/domain@data.source=text_file", "data.source.file=news.csv"]
    assert "there is no embedding to take over" in problems("strategy=scratch")
    assert "would stay so; use strategy=full" in problems("strategy=frozen", "backbone.weights=source", *source)
    joint = problems("backbone.weights=source", "objective.alpha=0.5", *source)
    assert "pretraining gives one encoder for both" in joint
    assert "the target needs another head" in problems("head=gru_decoder", "backbone.weights=source", *source)
