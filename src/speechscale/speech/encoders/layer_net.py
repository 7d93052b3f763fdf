"""A pretrained speech transformer, cut after the layer that is wanted.

Enters: the files of a transformers model, a layer, a precision. Leaves: a net with two steps, samples to
vectors and vectors to hidden states. The one decision worth knowing: the layers above the wanted one are not even
loaded, and padding can reach no frame, because only vectors are padded, never audio.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.speech.encoders.fronts import (
    DEVICE_TILE_FRAMES,
    TILE_FRAMES,
    ConvFront,
    FileStatistics,
    FilterbankFront,
    Front,
)
from speechscale.speech.encoders.loading import load_model
from speechscale.speech.encoders.model_files import ModelFiles
from speechscale.speech.encoders.spectral_conv import SpectralConv1d, replaceable

CLASSES = {
    "hubert": "HubertModel",
    "wav2vec2": "Wav2Vec2Model",
    "wavlm": "WavLMModel",
    "wav2vec2-bert": "Wav2Vec2BertModel",
}
PRECISIONS = ("fp32", "bf16", "bf16-autocast")
UNUSED_WEIGHTS = ("masked_spec_embed",)
"""Weights that only training reads; a file may lack them."""
BY_HEAD = "speechscale_by_head"


@dataclass(frozen=True)
class LayerNet:
    """The loaded net; build it with `load_layer`."""

    model: Any
    front: Front
    device: torch.device
    precision: str
    masks_padding: bool
    encoder: Any

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    def vectors(
        self, samples: Float[np.ndarray, " samples"], statistics: FileStatistics | None
    ) -> Float[torch.Tensor, "frames channels"]:
        """Run the front on one stretch of audio."""
        with torch.inference_mode(), self._autocast():
            return self.front(torch.from_numpy(samples).to(self.device), statistics).to(self.dtype)

    def hidden(
        self, vectors: Sequence[Float[torch.Tensor, "frames channels"]]
    ) -> list[Float[np.ndarray, "frames dim"]]:
        """Run the transformer on one or several files at once; shorter ones are padded and masked."""
        lengths = [len(one) for one in vectors]
        with torch.inference_mode(), self._autocast():
            batch = torch.nn.utils.rnn.pad_sequence(list(vectors), batch_first=True)
            projected = self.model.feature_projection(batch)
            states = projected[0] if isinstance(projected, tuple) else projected
            valid = None
            if min(lengths) < max(lengths):
                valid = (
                    torch.arange(max(lengths), device=self.device)[None]
                    < torch.tensor(lengths, device=self.device)[:, None]
                )
            with _masked_norms(self.model, valid), warnings.catch_warnings():
                # WavLM's own mask is of another type than its position bias.
                warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
                states = self.encoder(states, attention_mask=valid).last_hidden_state
            return [one[:length].float().cpu().numpy() for one, length in zip(states, lengths, strict=True)]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16-autocast":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


def load_layer(files: ModelFiles, layer: int, *, precision: str, device: torch.device, compile: bool) -> LayerNet:
    """Load the model up to `layer`, checked for missing weights.

    Layer 0 is what enters the first transformer layer, layer i what leaves the i-th. Models with their norms before the
    blocks ("stable layer norm") have one more norm at the very end; it belongs to the last layer only, as fairseq and
    transformers 4 have it.

    Raises:
        DataError: unknown kind of model, a layer it does not have, missing or misshapen weights.
    """
    kind, total = model_kind(files), int(files.settings.get("num_hidden_layers", 12))
    if not 0 <= layer <= total:
        raise DataError(f"model '{files.name}': has layers 0..{total}, {layer} was asked for; correct the layer")
    attention = {}
    if precision != "fp32" and device.type == "cpu" and kind in ("hubert", "wav2vec2"):
        _register_attention()
        attention = {"attn_implementation": BY_HEAD}
    model = load_model(files, CLASSES[kind], unused=UNUSED_WEIGHTS, num_hidden_layers=layer, **attention)
    if layer < total and files.settings.get("do_stable_layer_norm") and kind != "wav2vec2-bert":
        model.encoder.layer_norm = torch.nn.Identity()
    fold_weight_norm(model)
    position = getattr(model.encoder, "pos_conv_embed", None)
    if position is not None and device.type == "cpu" and not compile and replaceable(position.conv):
        position.conv = SpectralConv1d(position.conv)
    model = model.to(device)
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    encoder = torch.compile(model.encoder, dynamic=True) if compile else model.encoder
    return LayerNet(
        model=model,
        front=make_front(model, kind, device),
        device=device,
        precision=precision,
        masks_padding=kind == "wav2vec2-bert" or files.settings.get("feat_extract_norm", "group") == "layer",
        encoder=encoder,
    )


def model_kind(files: ModelFiles) -> str:
    kind = str(files.settings.get("model_type"))
    if kind not in CLASSES:
        raise DataError(f"model '{files.name}': is a '{kind}'; known kinds are {', '.join(sorted(CLASSES))}")
    return kind


def make_front(model: Any, kind: str, device: torch.device) -> Front:
    """Make the front of a loaded model."""
    if kind == "wav2vec2-bert":
        from transformers import SeamlessM4TFeatureExtractor

        extractor = SeamlessM4TFeatureExtractor()
        return FilterbankFront(extractor.mel_filters, extractor.window)
    tiles = TILE_FRAMES if device.type == "cpu" else DEVICE_TILE_FRAMES
    return ConvFront(model.feature_extractor.conv_layers, tile_frames=tiles)


def fold_weight_norm(model: torch.nn.Module) -> None:
    """Replace weights that are kept as direction and length by their product."""
    for module in list(model.modules()):
        if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
            torch.nn.utils.parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        elif hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)


@contextmanager
def _masked_norms(model: Any, valid: torch.Tensor | None) -> Iterator[None]:
    """Keep padding zero behind the batch norm that some models have before their positional convolution."""
    norm = getattr(getattr(model.encoder, "pos_conv_embed", None), "batch_norm", None)
    if norm is None or valid is None:
        yield
        return
    handle = norm.register_forward_hook(lambda _module, _inputs, output: output * valid[:, None])
    try:
        yield
    finally:
        handle.remove()


def _register_attention() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def by_head(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **options: Any) -> Any:
        """Attention of one head at a time: with bf16 on CPUs without AMX 1.5 x faster than torch's fused kernel."""
        if attention_mask is not None or query.requires_grad:
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        scale = options.get("scaling") or query.shape[-1] ** -0.5
        output = torch.empty_like(query.transpose(1, 2))  # (B, T, heads, dim)
        for row in range(query.shape[0]):
            for head in range(query.shape[1]):
                scores = torch.mm(query[row, head] * scale, key[row, head].t())
                output[row, :, head] = torch.mm(torch.softmax(scores, dim=-1), value[row, head])
        return output, None

    AttentionInterface.register(BY_HEAD, by_head)
    AttentionMaskInterface.register(BY_HEAD, sdpa_mask)
