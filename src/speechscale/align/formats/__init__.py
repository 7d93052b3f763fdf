"""Read and write word times in the formats of other programs; one internal record, `Word`."""

from speechscale.align.formats.entries import Segment
from speechscale.align.formats.kaldi import shift, shift_to_recordings
from speechscale.align.formats.reading import (
    read_alignment,
    read_alignments,
    read_pocketsphinx,
    read_segments,
    read_textgrid,
)
from speechscale.align.formats.registry import FORMATS, Format, sniff_format
from speechscale.align.formats.settle import END_TOLERANCE_S, Losses, Repair, clip_words
from speechscale.align.formats.textgrid import Interval, Tier, textgrid_tiers
from speechscale.align.formats.writing import write_alignment, write_segments

__all__ = [
    "END_TOLERANCE_S",
    "FORMATS",
    "Format",
    "Interval",
    "Losses",
    "Repair",
    "Segment",
    "Tier",
    "clip_words",
    "read_alignment",
    "read_alignments",
    "read_pocketsphinx",
    "read_segments",
    "read_textgrid",
    "shift",
    "shift_to_recordings",
    "sniff_format",
    "textgrid_tiers",
    "write_alignment",
    "write_segments",
]
