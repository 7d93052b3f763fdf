"""Shapes with a name: miniatures, those of Cuervo & Marxer, and released TextLMs.

Leaves: `SIZES`. The one decision worth knowing: a released shape is written down here only if its parameters come out
at the published number to the last digit (tests); what is published in words only is left out.
"""

from __future__ import annotations

from speechscale.model.families import TRAITS, Family
from speechscale.model.shape import Size


def _llama(name: str, layers: int, dim: int, heads: int, ffn: int) -> Size:
    return Size(name=name, layers=layers, dim=dim, heads=heads, kv_heads=heads, ffn=ffn)


def _gated(
    name: str,
    layers: int,
    dim: int,
    heads: int,
    kv_heads: int,
    ffn: int,
    text_vocab: int,
    *,
    family: Family,
    theta: float,
    tied: bool = True,
    head_dim: int | None = None,
    window: int | None = None,
) -> Size:
    return Size(
        name=name,
        layers=layers,
        dim=dim,
        heads=heads,
        kv_heads=kv_heads,
        ffn=ffn,
        family=family,
        tied=tied,
        rope_theta=theta,
        text_vocab=text_vocab,
        own_head_dim=head_dim,
        window=window,
    )


def _plain(
    name: str,
    layers: int,
    dim: int,
    heads: int,
    text_vocab: int,
    *,
    family: Family,
    positions: int = 0,
    row_dim: int | None = None,
    post_norm: bool = False,
) -> Size:
    """Feed-forward of four times the width, no gate, all heads with keys and values of their own."""
    return Size(
        name=name,
        layers=layers,
        dim=dim,
        heads=heads,
        kv_heads=heads,
        ffn=4 * dim,
        family=family,
        tied=TRAITS[family].tied,
        text_vocab=text_vocab,
        own_row_dim=row_dim,
        positions=positions,
        post_norm=post_norm,
    )


_MINIATURE = (
    _llama("0.02M", layers=2, dim=32, heads=2, ffn=64),
    _llama("0.05M", layers=2, dim=48, heads=3, ffn=112),
    _llama("0.1M", layers=2, dim=64, heads=4, ffn=176),
    _llama("0.2M", layers=4, dim=64, heads=4, ffn=176),
    _llama("0.5M", layers=4, dim=96, heads=3, ffn=304),
    _llama("1M", layers=5, dim=128, heads=4, ffn=352),
    _llama("3M", layers=7, dim=192, heads=6, ffn=496),
)
_CUERVO = (
    _llama("20M", layers=6, dim=512, heads=8, ffn=1536),
    _llama("85M", layers=12, dim=768, heads=12, ffn=2048),
    _llama("155M", layers=12, dim=1024, heads=16, ffn=2816),
    _llama("309M", layers=24, dim=1024, heads=16, ffn=2816),
    _llama("823M", layers=16, dim=2048, heads=32, ffn=5632),
)
_QWEN = (
    _gated("qwen2.5-0.5B", 24, 896, 14, 2, 4864, 151_936, family="qwen2", theta=1e6),
    _gated("qwen2.5-1.5B", 28, 1536, 12, 2, 8960, 151_936, family="qwen2", theta=1e6),
    _gated("qwen2.5-3B", 36, 2048, 16, 2, 11_008, 151_936, family="qwen2", theta=1e6),
    _gated("qwen2.5-7B", 28, 3584, 28, 4, 18_944, 152_064, family="qwen2", theta=1e6, tied=False),
    _gated("qwen3-0.6B", 28, 1024, 16, 8, 3072, 151_936, family="qwen3", theta=1e6, head_dim=128),
    _gated("qwen3-1.7B", 28, 2048, 16, 8, 6144, 151_936, family="qwen3", theta=1e6),
    _gated("qwen3-4B", 36, 2560, 32, 8, 9728, 151_936, family="qwen3", theta=1e6, head_dim=128),
    _gated("qwen3-8B", 36, 4096, 32, 8, 12_288, 151_936, family="qwen3", theta=1e6, tied=False),
)
_LLAMA = (
    _gated("smollm2-135M", 30, 576, 9, 3, 1536, 49_152, family="llama", theta=1e5),
    _gated("smollm2-360M", 32, 960, 15, 5, 2560, 49_152, family="llama", theta=1e5),
    _gated("smollm2-1.7B", 24, 2048, 32, 32, 8192, 49_152, family="llama", theta=1.3e5),
    _gated("llama-3.2-1B", 16, 2048, 32, 8, 8192, 128_256, family="llama", theta=5e5),
    _gated("llama-3.2-3B", 28, 3072, 24, 8, 8192, 128_256, family="llama", theta=5e5),
)
_GEMMA = (
    _gated("gemma-2b", 18, 2048, 8, 1, 16_384, 256_000, family="gemma", theta=1e4),
    _gated("gemma-2-2b", 26, 2304, 8, 4, 9216, 256_000, family="gemma2", theta=1e4, head_dim=256, window=4096),
    _gated("gemma-3-270m", 18, 640, 4, 1, 2048, 262_144, family="gemma3", theta=1e6, head_dim=256, window=512),
    _gated("gemma-3-1b", 26, 1152, 4, 1, 6912, 262_144, family="gemma3", theta=1e6, head_dim=256, window=512),
)
_PYTHIA = tuple(
    _plain(f"pythia-{name}", layers, dim, heads, text_vocab, family="gpt_neox")
    for name, layers, dim, heads, text_vocab in (
        ("14m", 6, 128, 4, 50_304),
        ("31m", 6, 256, 8, 50_304),
        ("70m", 6, 512, 8, 50_304),
        ("160m", 12, 768, 12, 50_304),
        ("410m", 24, 1024, 16, 50_304),
        ("1b", 16, 2048, 8, 50_304),
        ("1.4b", 24, 2048, 16, 50_304),
        ("2.8b", 32, 2560, 32, 50_304),
        ("6.9b", 32, 4096, 32, 50_432),
        ("12b", 36, 5120, 40, 50_688),
    )
)
_OPT = (
    _plain("opt-125m", 12, 768, 12, 50_272, family="opt", positions=2048),
    _plain("opt-350m", 24, 1024, 16, 50_272, family="opt", positions=2048, row_dim=512, post_norm=True),
    _plain("opt-1.3b", 24, 2048, 32, 50_272, family="opt", positions=2048),
)
_PHI = (_plain("phi-1.5", 24, 2048, 32, 51_200, family="phi"),)

SIZES: dict[str, Size] = {
    size.name: size for size in (*_MINIATURE, *_CUERVO, *_QWEN, *_LLAMA, *_GEMMA, *_PYTHIA, *_OPT, *_PHI)
}
"""Miniatures are named by their parameters without embeddings; the shapes of Cuervo & Marxer (2024, Table 2) and of
released TextLMs by their published names, which count embeddings."""
