"""Read and write word times in the formats of other programs; one internal record, `Word`."""

from speechscale.align.formats.textgrid import (
    END_TOLERANCE_S,
    Interval,
    Tier,
    clip_words,
    read_alignment,
    read_pocketsphinx,
    read_textgrid,
    textgrid_tiers,
)

__all__ = [
    "END_TOLERANCE_S",
    "Interval",
    "Tier",
    "clip_words",
    "read_alignment",
    "read_pocketsphinx",
    "read_textgrid",
    "textgrid_tiers",
]
