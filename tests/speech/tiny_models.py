"""Tiny pretrained models with random weights: the real classes, the real files, no download."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
import transformers

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "left_max_position_embeddings": 8,
    "right_max_position_embeddings": 4,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert-base": ("Hubert", SIZES),
    "hubert-25hz": (
        "Hubert",
        SIZES
        | {"conv_dim": (16,) * 8, "conv_kernel": (10, 3, 3, 3, 3, 2, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2, 2)},
    ),
    "hubert-large": ("Hubert", SIZES | LARGE),
    "hubert-batch-norm": ("Hubert", SIZES | {"conv_pos_batch_norm": True}),
    "wav2vec2-base": ("Wav2Vec2", SIZES),
    "wav2vec2-large": ("Wav2Vec2", SIZES | LARGE),
    "wavlm-base": ("WavLM", SIZES),
    "wavlm-large": ("WavLM", SIZES | LARGE),
    "w2v-bert": ("Wav2Vec2Bert", BERT),
}


def tiny_model(kind: str) -> Any:
    """The model of that kind, all weights random (norms and biases too, so that a lost one shows)."""
    name, settings = KINDS[kind]
    torch.manual_seed(sum(map(ord, kind)))
    config = getattr(transformers, f"{name}Config")(**settings)
    model = getattr(transformers, f"{name}Model")(config).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "norm" in parameter_name and parameter_name.endswith("weight"):
                parameter.uniform_(0.5, 1.5)
            elif parameter_name.endswith("bias"):
                parameter.normal_(0, 0.3)
    return model


@cache
def tiny_folder(kind: str, *, do_normalize: bool = True) -> Path:
    """A folder with the model's config.json, model.safetensors and preprocessor_config.json."""
    folder = Path(mkdtemp(prefix="speechscale-tiny-")) / f"tiny-{kind}"
    tiny_model(kind).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    return folder


def speech_like(samples: int, seed: int = 0) -> np.ndarray:
    """Noise with a moving color and loudness, so that frames differ."""
    rng = np.random.default_rng([seed, samples])
    time = np.arange(samples) / 16_000
    loud = 0.1 + 0.09 * np.sin(2 * np.pi * 3.1 * time + seed)
    tone = np.sin(2 * np.pi * np.cumsum(200 + 150 * np.sin(2 * np.pi * 1.7 * time)) / 16_000)
    return (loud * (tone + 0.5 * rng.standard_normal(samples)) + 0.01).astype(np.float32)


@cache
def tiny_codec(kind: str) -> Path:
    """A folder with a tiny codec: "mimi", "encodec" or "xcodec"."""
    torch.manual_seed(sum(map(ord, kind)))
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "mimi":
        config = transformers.MimiConfig(
            **shape, num_key_value_heads=4, head_dim=8, num_filters=4, upsample_groups=32, codebook_size=64,
            codebook_dim=16, vector_quantization_hidden_dimension=16, num_quantizers=8
        )  # fmt: skip
        model: Any = transformers.MimiModel(config)
    elif kind == "encodec":
        config = transformers.EncodecConfig(num_filters=4, hidden_size=16, codebook_size=64, codebook_dim=16)
        model = transformers.EncodecModel(config)
    else:
        hubert = transformers.HubertConfig(**SIZES)
        dac = transformers.DacConfig(
            encoder_hidden_size=8, decoder_hidden_size=64, downsampling_ratios=[8, 5, 4, 2],
            upsampling_ratios=[8, 5, 4, 2], hidden_size=128, codebook_size=64, codebook_dim=8, n_codebooks=4
        )  # fmt: skip
        config = transformers.XcodecConfig(
            acoustic_model_config=dac.to_dict(), semantic_model_config=hubert.to_dict(), codebook_size=64
        )
        model = transformers.XcodecModel(config)
    spread_codebooks(model.eval())
    folder = Path(mkdtemp(prefix="speechscale-tiny-")) / f"tiny-{kind}"
    model.save_pretrained(folder)
    return folder


def spread_codebooks(model: Any) -> None:
    """Make each codebook's vectors frames of what it is given, so that its codes differ."""

    def fill(codebook: Any, hidden: torch.Tensor) -> None:
        rows = hidden.reshape(-1, hidden.shape[-1])
        chosen = rows[torch.randperm(len(rows))[: codebook.codebook_size]].clone()
        if hasattr(codebook, "embed_sum"):
            codebook.embed_sum.copy_(chosen)
            codebook.cluster_usage.fill_(1.0)
            codebook._embed = None
        else:
            codebook.embed.copy_(chosen)

    books = [module for module in model.modules() if type(module).__name__.endswith("EuclideanCodebook")]
    for book in books:
        encode = book.encode

        def first(hidden: torch.Tensor, book: Any = book, encode: Any = encode) -> Any:
            fill(book, hidden)
            return encode(hidden)

        book.encode = first
    widest = {} if not hasattr(model.config, "target_bandwidths") else {"bandwidth": model.config.target_bandwidths[-1]}
    with torch.no_grad():
        model.encode(torch.from_numpy(speech_like(200_000, 7))[None, None], **widest)
    for book in books:
        del book.encode
