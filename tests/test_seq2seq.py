"""Texts to texts: tokens, decoders, decoding, metrics, and a run from a file to titles in a file."""

import itertools
import json
import math

import pytest
import torch
from hydra import compose, initialize_config_dir

import graft
from graft.backbones.outputs import Tokens
from graft.backbones.vocabulary import Vocabulary
from graft.cli.hydra_versions import VERSION_BASE
from graft.config import check
from graft.data.target_texts import TargetTexts
from graft.errors import GraftError
from graft.export.write import export
from graft.heads.base import HeadContext
from graft.heads.decoding import BEGIN, END, PADDING, beam_search, token_sums
from graft.heads.gru_decoder import GRUDecoder
from graft.heads.transformer_decoder import TransformerDecoder
from graft.model import predictions
from graft.report.written import are_in, section
from graft.tasks.seq2seq import Seq2Seq
from graft.tasks.target_tokens import TargetTokens
from graft.tasks.text_metrics import Perplexity, Rouge, TokenAccuracy
from tests.model.test_serve import serving
from tests.small_run import CONF, train_in

CONTEXT = HeadContext(feature_size=6, num_outputs=7, local_size=6)
DECODERS = {
    "gru": lambda **more: GRUDecoder(CONTEXT, width=8, **more),
    "transformer": lambda **more: TransformerDecoder(CONTEXT, width=8, heads=2, positions=6, **more),
}
WIDE = [
    *("data=text", "data/domain@data.target=text_to_text", "task=seq2seq", "head=gru_decoder", "backbone=lstm"),
    *("strategy=scratch", "trainer=cpu", "training.threads=1", "logger=csv", "data.batch_size=8"),
    *("backbone.embedding_size=8", "backbone.hidden_size=8", "head.width=8", "task.max_length=4", "training.epochs=2"),
]


def decoder_of(name, **more):
    torch.manual_seed(0)
    decoder = DECODERS[name](**more).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.7)  # far from equal scores
    return decoder


def memory_of(samples=3, length=4):
    torch.manual_seed(1)
    mask = torch.ones(samples, length, dtype=torch.int64)
    mask[1, 2:] = 0
    return Tokens(torch.randn(samples, length, 6, dtype=torch.float64), mask)


# Tokens


def test_texts_become_ids_and_texts_again():
    tokens = TargetTokens(Vocabulary(["shares rise", "shares fall again today"]), max_length=3)
    ids = tokens.ids(["Shares fall again today", "unheard rise"])
    assert ids.shape == (2, 4)
    assert ids[0, -1] == END
    assert ids[1].tolist()[2:] == [END, PADDING]
    assert tokens.texts(ids) == ["shares fall again", " rise"]
    assert {PADDING, BEGIN, ids[1, 0].item()} <= set(tokens.unwritten), "no text is written with unknown words"


def test_labels_move_like_tensors():
    labels = TargetTexts(["a", "b", "c"])
    assert labels[torch.tensor([2, 0])].tolist() == ["c", "a"]
    assert labels[:1].to("cpu", non_blocking=True).float().cpu().pin_memory().tolist() == ["a"]
    assert TargetTexts.join([labels[1:], labels[:1]]).tolist() == ["b", "c", "a"]
    assert labels.digest != labels[torch.tensor([2, 0, 1])].digest


# Decoders


@pytest.mark.parametrize("name", DECODERS)
def test_steps_are_what_teacher_forcing_sees_and_padding_of_the_input_is_not_read(name):
    decoder, memory = decoder_of(name), memory_of()
    ids = torch.tensor([[BEGIN, 3, 4], [BEGIN, 5, 6], [BEGIN, 3, 3]])
    forced, state = decoder.score(memory, ids), decoder.start(memory)
    for place in range(3):
        logits, state = decoder.step(ids[:, place], state)
        torch.testing.assert_close(logits, forced[:, place])
    alone = decoder.score(Tokens(memory.values[1:2, :2], memory.mask[1:2, :2]), ids[1:2])
    torch.testing.assert_close(alone, forced[1:2])
    later = decoder.score(memory, torch.cat([ids[:, :2], torch.tensor([[6], [3], [5]])], dim=1))
    torch.testing.assert_close(later[:, :2], forced[:, :2], msg="a token does not see those behind it")


def test_sums_of_tokens_in_double_precision():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    ids = torch.tensor([[3, 4, END], [4, END, PADDING]])
    for smoothing in (0.0, 0.1):
        expected = []
        for row, own in zip(logits, ids, strict=True):
            total = 0.0
            for scores, token in zip(row.tolist(), own.tolist(), strict=True):
                if token != PADDING:
                    log_p = [one - math.log(sum(map(math.exp, scores))) for one in scores]
                    total += (1 - smoothing) * log_p[token] + smoothing * sum(log_p) / 5
            expected.append(total)
        sums = token_sums(logits, ids, smoothing)
        assert sums[:, 0].tolist() == pytest.approx(expected)
    assert sums[:, 2].tolist() == [3, 2]
    assert sums[:, 1].tolist() == [
        sum(int(row.argmax()) == token for row, token in zip(rows, own, strict=True) if token != PADDING)
        for rows, own in zip(logits, ids.tolist(), strict=True)
    ]


@pytest.mark.parametrize("name", DECODERS)
def test_a_search_of_all_beams_finds_the_best_text_and_one_beam_is_greedy(name):
    decoder, memory, steps, power = decoder_of(name), memory_of(), 3, 0.7
    words, unwritten = [END, 3, 4], [PADDING, BEGIN, 5, 6]
    texts = [
        text
        for length in range(1, steps + 1)
        for text in itertools.product(words, repeat=length)
        if END not in text[:-1] and (text[-1] == END or length == steps)
    ]
    for sample in range(3):
        one = Tokens(memory.values[sample : sample + 1], memory.mask[sample : sample + 1])

        def worth(text, one=one):
            logits = decoder.score(one, torch.tensor([[BEGIN, *text[:-1]]]))[0]
            logits[:, unwritten] = -torch.inf
            log_p = logits.log_softmax(-1)
            return sum(log_p[place, token].item() for place, token in enumerate(text)) / len(text) ** power

        best = max(texts, key=worth)
        found = beam_search(decoder, one, steps, 3**steps, power, unwritten)[0].tolist()
        assert [token for token in found if token != PADDING] == [*best]
        greedy = []
        while END not in greedy and len(greedy) < steps:
            logits = decoder.score(one, torch.tensor([[BEGIN, *greedy]]))[0, -1]
            logits[unwritten] = -torch.inf
            greedy.append(int(logits.argmax()))
        alone = beam_search(decoder, one, steps, 1, power, unwritten)[0].tolist()
        assert [token for token in alone if token != PADDING] == greedy
    together = beam_search(decoder, memory, steps, 4, power, unwritten)
    for sample in range(3):
        one = Tokens(memory.values[sample : sample + 1], memory.mask[sample : sample + 1])
        alone = beam_search(decoder, one, steps, 4, power, unwritten)[0].tolist()
        assert together[sample].tolist()[: len(alone)] == alone, "beams of one text know nothing of another's"


def test_one_matrix_scores_and_embeds_and_too_long_a_text_is_named():
    for name in DECODERS:
        tied, apart = DECODERS[name](), DECODERS[name](tied=False)
        assert tied.output.weight is tied.embedding.weight
        assert apart.output.weight is not apart.embedding.weight
    with pytest.raises(GraftError, match=r"head.positions=6: a text has 7 tokens. Set head.positions=7"):
        decoder_of("transformer").score(memory_of(), torch.full((3, 7), 3))


# Metrics


def test_rouge_by_hand():
    metric = Rouge()
    metric.update(TargetTexts(["the cat sat", "rain"]), TargetTexts(["The cat slept here", "rain!"]))
    values = {name: value.item() for name, value in metric.compute().items()}
    assert values["rouge1"] == pytest.approx((2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4) + 1) / 2)
    assert values["rouge2"] == pytest.approx((2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3) + 0) / 2)
    assert values["rougeL"] == values["rouge1"]
    sums = torch.tensor([[-2.0, 1, 2], [-4.0, 1, 3]])
    for kind, expected in ((TokenAccuracy(), 2 / 5), (Perplexity(), math.exp(6 / 5))):
        kind.update(None, None, scores=sums)
        assert kind.compute().item() == pytest.approx(expected)


def test_the_task_asks_for_labels_or_tokens():
    with pytest.raises(GraftError, match=r"Set task.vocabulary=input, or"):
        Seq2Seq().num_outputs(None)
    task = Seq2Seq(max_length=3)
    task.fit(TargetTexts(["a b", "b c"]))
    other = Seq2Seq(max_length=3)
    other.load_state_dict(json.loads(json.dumps(task.state_dict())))
    assert other.num_outputs(None) == task.num_outputs(None) == 3 + 2 + 3
    assert other.tokens.ids(["c b"]).tolist() == task.tokens.ids(["c b"]).tolist()


# Runs


@pytest.fixture
def articles(tmp_path):
    names = ("oil", "gold", "tea", "steel")
    rows = [(names[n % 4], ("rise", "fall")[n // 4 % 2], n) for n in range(48)]
    lines = [f"prices of {name} {verb} in market {n},{name} {verb}\n" for name, verb, n in rows]
    file = tmp_path / "news.csv"
    file.write_text("text,title\n" + "".join(lines))
    return file


def test_a_run_writes_titles_and_its_model_writes_the_same(articles, tmp_path):
    found = train_in(tmp_path, *WIDE, f"data.target.file={articles}", "baselines=auto", "training.epochs=10",
                     "optimizer.lr=0.03", "head.dropout=0", "backbone.dropout=0", "selection=last",
                     "training.validate_every_epochs=10")  # fmt: skip
    assert found["status"] == "done"
    metrics = found["metrics"]
    assert metrics["test/target/rougeL"] > 0.4
    assert metrics["test/target/perplexity"] == pytest.approx(math.exp(metrics["test/target/loss"]), rel=1e-4)
    lead = found["baselines"]["lead"]
    assert lead["title"] == "first 2 words of the text"
    assert lead["metrics"]["test/target/rouge1"] == 0, "`prices of` is in no title"
    assert 0 < found["baselines"]["random_text"]["metrics"]["test/target/rouge1"] < metrics["test/target/rouge1"]
    kept = predictions.read(tmp_path / "run" / "predictions.parquet")["target"]
    assert are_in(kept)
    row = kept["prediction"].index(max(kept["prediction"], key=len))
    text = articles.read_text().splitlines()[int(kept["sample"][row].rpartition("row ")[2]) - 1].partition(",")[0]
    model = graft.load_run(tmp_path / "run")
    assert model.predict([text]).labels == (kept["prediction"][row],)
    assert "to text" in repr(model)
    with pytest.raises(GraftError, match="predicts texts, which are neither explained"):
        model.predict([text], explain=True)
    with pytest.raises(GraftError, match=r"writes texts, which are neither exported .* graft predict"):
        export(tmp_path / "run", "onnx", tmp_path / "titles.onnx", None, ())
    with serving(model) as page:
        status, answer = page.predict(text=text)
        html = page.post("/", text=text)[1]
    assert (status, answer) == (200, {"input": "text", "prediction": kept["prediction"][row]})
    assert f'<p class="answer">{kept["prediction"][row]}</p>' in html
    assert "From a text to a text" in html
    assert "Texts are not explained." in html
    page = section(kept, content=True, contents={})
    assert page.samples[0].label == kept["label"][kept["sample"].index(page.samples[0].name)]


@pytest.mark.slow
def test_a_transformer_writes_in_the_inputs_words_with_beams(articles, tmp_path):
    found = train_in(tmp_path, *WIDE, f"data.target.file={articles}", "head=transformer_decoder", "head.heads=2",
                     "task.vocabulary=input", "task.width=3", "task.label_smoothing=0.1")  # fmt: skip
    assert found["status"] == "done"
    assert "val/target/loss_smoothed" in found["metrics"]
    assert len(graft.load_run(tmp_path / "run").predict(["prices of tea rise"]).labels) == 1


def test_what_cannot_be_meant_is_named():
    def problems(*overrides):
        words = [*WIDE[:-4], "data.target.file=news.csv", "++paths.run_dir=run", *overrides]
        with pytest.raises(GraftError) as caught, initialize_config_dir(CONF, **VERSION_BASE):
            check(compose("train", overrides=words))
        return str(caught.value)

    assert "`task=Seq2Seq` with `head=LinearHead`: the target needs a decoder" in problems("head=linear")
    assert "texts to write need task=seq2seq" in problems("task=multiclass", "head=linear")
    assert "`data.target.label_kind=classes`: it needs texts to write" in problems("data.target.label_kind=classes")
    assert "terms compare features" in problems("term=[coral]")
    assert "it is not for texts" in problems("save.neighbours=true")
