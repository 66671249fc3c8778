"""Networks that encode and decode, with random weights, cut in half: together they compute what they did."""

import pytest
import torch
import transformers

import graft
from graft.backbones.huggingface_seq2seq import HuggingFaceSeq2SeqBackbone
from graft.errors import GraftError
from graft.heads.base import HeadContext, context_for, new_head, seen_by
from graft.heads.decoding import BEGIN, END
from graft.heads.pretrained_decoder import PretrainedDecoder
from graft.weights.loading import load_weights
from tests.networks_on_disk import write_language_model
from tests.small_run import train_in

IDS = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 2, "vocab_size": 16}  # two more than tokens
CONFIGS = {
    "t5": lambda: transformers.T5Config(**IDS, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2),
    "bart": lambda: transformers.BartConfig(
        **IDS, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32, bos_token_id=2, forced_eos_token_id=3,
    ),
}  # fmt: skip
HEAD = {"_target_": "graft.heads.pretrained_decoder.PretrainedDecoder"}


@pytest.fixture(params=CONFIGS)
def folder(request, tiny_bert, tmp_path):
    """The folder of a random model and of a tokenizer."""
    return str(write_language_model(tmp_path / "model", tiny_bert, "Seq2SeqLM", CONFIGS[request.param]()))


def test_both_halves_compute_what_the_whole_does(folder):
    backbone = HuggingFaceSeq2SeqBackbone(folder, max_length=16).eval()
    report = load_weights(backbone, "pretrained")
    assert report.matched == report.total
    size = backbone.tokenizer.size
    head = new_head(HEAD, context_for(HEAD, backbone, size + 3, None)).eval()
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    x = backbone.example_inputs(2)
    x.tensors["attention_mask"][1, 5:] = 0
    ids = torch.tensor([[BEGIN, 7, 8], [BEGIN, 9, END]])
    with torch.no_grad():
        ours = head.score(seen_by(head, backbone, x), ids)
        theirs = model(**x.tensors, decoder_input_ids=torch.tensor([[2, 4, 5], [2, 6, 3]])).logits
    torch.testing.assert_close(ours[..., END], theirs[..., 3])
    words = [token for token in range(size) if token != 3]
    torch.testing.assert_close(ours[..., [token + 3 for token in words]], theirs[..., words])
    assert ours.shape[-1] == size + 3
    names = dict(backbone.named_parameters()), dict(head.named_parameters())
    assert not {id(one) for one in names[0].values()} & {id(one) for one in names[1].values()}, "no weight is in both"
    assert not any("encoder.block" in name or "encoder.layers" in name for name in names[1])
    owned = [name for stage in backbone.stages for name in backbone.stage_parameters(stage.name)]
    assert sorted(owned) == sorted(names[0])


def test_other_models_and_other_backbones_are_named(folder):
    backbone = HuggingFaceSeq2SeqBackbone(folder, max_length=16)
    with pytest.raises(GraftError, match=r"bert is no network that encodes and decodes texts. Choose one \(T5, BART\)"):
        backbone.check_config("x", transformers.BertConfig())
    with pytest.raises(GraftError, match=r"this backbone has no decoder. Use backbone=seq2seq"):
        PretrainedDecoder(HeadContext(feature_size=4, num_outputs=9, local_size=4))


@pytest.mark.slow
def test_a_run_goes_on_from_both_halves_and_its_model_opens(folder, tmp_path):
    words = ["film", "plot", "good", "bad"]
    rows = [f"{words[n % 2]} {n} is {words[2 + n // 2 % 2]},{words[2 + n // 2 % 2]} {words[n % 2]}" for n in range(32)]
    (tmp_path / "reviews.csv").write_text("text,title\n" + "\n".join(rows) + "\n")
    found = train_in(
        tmp_path,
        *("data=text", "data/domain@data.target=text_to_text", f"data.target.file={tmp_path / 'reviews.csv'}"),
        *("backbone=seq2seq", f"backbone.name={folder}", "backbone.weights=pretrained", "backbone.max_length=16"),
        *("task=seq2seq", "task.vocabulary=input", "task.max_length=4", "head=pretrained_decoder", "trainer=cpu"),
        *("training.epochs=2", "training.threads=1", "logger=csv", "data.batch_size=8"),
    )
    assert found["status"] == "done"
    assert len(graft.load_run(tmp_path / "run").predict(["film is good", "plot is bad"]).labels) == 2
