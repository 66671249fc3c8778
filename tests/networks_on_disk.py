"""Tiny random models, written by transformers itself, so that the code that reads real ones runs offline."""

import shutil

import torch

WORDS = ["<pad>", "<end>", "<unk>", "a", "photo", "of", "the", "sound", *"0123456789", "zero", "one", "two", "three"]
TEXT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE = 12  # of what both towers give


def save_tokenizer(folder):
    """Words, and an end behind each text, by which CLIP pools."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **special).save_pretrained(folder)


def write_clip(folder):
    """A random CLIP for images of 16 x 16 pixels, its preprocessing and its tokenizer."""
    import transformers

    torch.manual_seed(0)
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    text = {**TEXT, "vocab_size": len(WORDS), "max_position_embeddings": 16, **special}
    vision = {**TEXT, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=SIZE)
    config.text_config.projection_dim = config.vision_config.projection_dim = SIZE
    transformers.CLIPModel(config).save_pretrained(folder)
    transformers.CLIPImageProcessor(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def write_clap(folder):
    """A random CLAP for a second of sound, its feature extractor and its tokenizer."""
    import transformers

    torch.manual_seed(0)
    positions = {"max_position_embeddings": 20, "pad_token_id": 0, "eos_token_id": 1, "type_vocab_size": 1}
    text = {**TEXT, "vocab_size": len(WORDS), **positions}
    swin = {"window_size": 4, "spec_size": 64, "num_mel_bins": 16, "patch_size": 2, "patch_stride": [2, 2]}
    depths = {"depths": [1, 1], "num_attention_heads": [2, 2], "patch_embeds_hidden_size": 8, "hidden_size": 16}
    config = transformers.ClapConfig(text_config=text, audio_config={**swin, **depths}, projection_dim=SIZE)
    config.text_config.projection_dim = config.audio_config.projection_dim = SIZE
    transformers.ClapModel(config).save_pretrained(folder)
    extractor = {"feature_size": 16, "sampling_rate": 8000, "hop_length": 40, "max_length_s": 1, "frequency_max": 4000}
    transformers.ClapFeatureExtractor(**extractor, fft_window_size=128, truncation="rand_trunc").save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def write_language_model(folder, tiny_bert, kind, config):
    """A random model of a config, `kind` as transformers' AutoModelFor<kind>, beside the tokenizer of `tiny_bert`."""
    import transformers

    shutil.copytree(tiny_bert, folder, ignore=shutil.ignore_patterns("config.json", "*.safetensors"))
    torch.manual_seed(0)
    getattr(transformers, f"AutoModelFor{kind}").from_config(config).save_pretrained(folder)
    return folder
