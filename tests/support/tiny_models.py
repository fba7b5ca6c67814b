"""Tiny randomly initialised transformers models on disk, tokenizers included."""

from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers

WORDS = [
    "<pad>", "<unk>", "</s>", "user", "transcribe", "speech", "to", "text", "output", "the",
    "good", "bad", "movie", "was", "a", "very", "assistant", ":", ".", "not",
]  # fmt: skip


def tokenizer(directory: Path) -> None:
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    hf.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    ).save_pretrained(directory)


def wavlm(directory: Path) -> str:
    torch.manual_seed(0)
    config = hf.WavLMConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8, 8, 8, 8, 8, 8, 8), num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2, num_buckets=32, max_bucket_distance=80,
    )  # fmt: skip
    hf.WavLMModel(config).save_pretrained(directory)
    hf.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(directory)
    return str(directory)


def whisper(directory: Path) -> str:
    torch.manual_seed(0)
    config = hf.WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80,
        vocab_size=60, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    hf.WhisperModel(config).save_pretrained(directory)
    hf.WhisperFeatureExtractor().save_pretrained(directory)
    return str(directory)


def llama(directory: Path) -> str:
    torch.manual_seed(3)
    config = hf.LlamaConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64,
        vocab_size=len(WORDS), pad_token_id=0, eos_token_id=2, bos_token_id=1,
        initializer_range=0.3,
    )  # fmt: skip
    hf.LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer(directory)
    return str(directory)


def bert(directory: Path) -> str:
    torch.manual_seed(0)
    config = hf.BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        vocab_size=len(WORDS), max_position_embeddings=64,
    )  # fmt: skip
    hf.BertModel(config).save_pretrained(directory)
    tokenizer(directory)
    return str(directory)


def vit(directory: Path) -> str:
    torch.manual_seed(0)
    config = hf.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    hf.ViTModel(config).save_pretrained(directory)
    hf.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(directory)
    return str(directory)


def moonshine(directory: Path) -> str:
    """An encoder-decoder speech model of Moonshine's kind, with its tokenizer."""
    torch.manual_seed(4)
    config = hf.MoonshineConfig(
        vocab_size=len(WORDS), hidden_size=24, intermediate_size=32,
        encoder_num_hidden_layers=3, decoder_num_hidden_layers=2,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        partial_rotary_factor=0.67, initializer_range=0.3, pad_token_id=0,
    )  # fmt: skip
    hf.MoonshineForConditionalGeneration(config).save_pretrained(directory)
    hf.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(directory)
    tokenizer(directory)
    (directory / "LICENSE").write_text("MIT, for a test\n")
    return str(directory)


def whisper_writer(directory: Path) -> str:
    """An encoder-decoder speech model of Whisper's kind, with its tokenizer."""
    torch.manual_seed(5)
    config = hf.WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=80,
        vocab_size=len(WORDS), pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
        init_std=0.5,
    )  # fmt: skip
    model = hf.WhisperForConditionalGeneration(config)
    model.generation_config.is_multilingual = False
    model.save_pretrained(directory)
    hf.WhisperFeatureExtractor().save_pretrained(directory)
    tokenizer(directory)
    return str(directory)
