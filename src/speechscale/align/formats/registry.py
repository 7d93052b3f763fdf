"""Every format by name, and which one a file has.

Enters: a path. Leaves: the name of its format; reader and writer of each. The one decision worth knowing: a format is
told by what is in the file, not by its name, since .json, .txt and .lab can be anything; the name only settles what
content leaves open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechscale.align.formats.entries import Found, Segment, decoded, read_bytes, read_text
from speechscale.align.formats.kaldi import find_lengths, find_segments
from speechscale.align.formats.labels import find_labels
from speechscale.align.formats.lhotse import find_lhotse, write_supervisions
from speechscale.align.formats.mfa import find_mfa_csv, find_mfa_json
from speechscale.align.formats.nist import find_ctm, find_rttm, find_stm, write_ctm, write_rttm
from speechscale.align.formats.settle import Losses
from speechscale.align.formats.sniff import sniff_json, sniff_lines
from speechscale.align.formats.sphinx import find_matchseg, find_sphinx
from speechscale.align.formats.textgrid import find_textgrid, write_textgrid
from speechscale.align.formats.whisper import find_whisper, write_whisperx
from speechscale.align.formats.word_lists import find_moshi, find_slamkit, find_tts, write_slamkit
from speechscale.errors import DataError

Reader = Callable[[Path, str | None], Iterator[Found]]
Writer = Callable[[Path, Sequence[Segment], float, Losses], None]


HEAD_BYTES = 1 << 20
"""How much of a file decides about its format; a longer JSON value is read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One alignment format.

    Args:
        tiers: whether `tier=` can choose (phones); otherwise there are only words.
        many: whether one file holds many recordings.
    """

    description: str
    suffixes: tuple[str, ...]
    reader: Reader
    writer: Writer | None = None
    tiers: bool = False
    many: bool = False


FORMATS: dict[str, Format] = {
    "textgrid": Format(
        description="Praat TextGrid, long or short; written long in UTF-8",
        suffixes=(".TextGrid", ".textgrid"),
        reader=find_textgrid,
        writer=write_textgrid,
        tiers=True,
    ),
    "ctm": Format(
        description="NIST CTM, also of Kaldi and NeMo",
        suffixes=(".ctm",),
        reader=find_ctm,
        writer=write_ctm,
        many=True,
    ),
    "stm": Format(description="NIST STM: segments with text", suffixes=(".stm",), reader=find_stm, many=True),
    "rttm": Format(
        description="NIST RTTM: speaker turns, LEXEME lines as words",
        suffixes=(".rttm",),
        reader=find_rttm,
        writer=write_rttm,
        many=True,
    ),
    "lhotse": Format(
        description="lhotse supervisions and cuts; supervisions are written",
        suffixes=(".jsonl", ".jsonl.gz", ".json"),
        reader=find_lhotse,
        writer=write_supervisions,
        tiers=True,
        many=True,
    ),
    "whisperx": Format(
        description="JSON of WhisperX (written), openai-whisper, faster-whisper, OpenAI's API, transformers",
        suffixes=(".json",),
        reader=find_whisper,
        writer=write_whisperx,
    ),
    "slamkit": Format(
        description="slamkit metadata JSON with aligned_text",
        suffixes=(".json",),
        reader=find_slamkit,
        writer=write_slamkit,
    ),
    "pocketsphinx": Format(
        description="pocketsphinx JSON, also with phones", suffixes=(".json",), reader=find_sphinx, tiers=True
    ),
    "matchseg": Format(description="pocketsphinx -matchseg", suffixes=(".matchseg",), reader=find_matchseg, many=True),
    "mfa-json": Format(
        description="JSON of the Montreal Forced Aligner and praatio",
        suffixes=(".json",),
        reader=find_mfa_json,
        tiers=True,
    ),
    "mfa-csv": Format(
        description="CSV of the Montreal Forced Aligner", suffixes=(".csv",), reader=find_mfa_csv, tiers=True
    ),
    "moshi": Format(description="Moshi's sidecar JSON", suffixes=(".json",), reader=find_moshi),
    "tts": Format(description="word times of TTS engines (Kokoro)", suffixes=(".json",), reader=find_tts),
    "kaldi-segments": Format(description="Kaldi's segments file", suffixes=("",), reader=find_segments, many=True),
    "kaldi-lengths": Format(
        description="Kaldi alignment as 'UTT LABEL FRAMES ; ...'",
        suffixes=(".txt", ".ali"),
        reader=find_lengths,
        many=True,
    ),
    "labels": Format(
        description="start, end and label per line (Audacity)", suffixes=(".txt", ".lab"), reader=find_labels
    ),
}
"""Formats by name. To add one: a reader that yields `Found`, a row here, a line in `sniff.py`."""


def sniff_format(path: Path) -> str:
    """Name of a file's format, by its content. Raises DataError when it is none of `FORMATS`."""
    path = Path(path)
    head = read_bytes(path, HEAD_BYTES)
    # A cut inside a letter must not turn UTF-8 into Latin-1; a cut line must not be taken for a row.
    text = decoded(head if len(head) < HEAD_BYTES else head[: head.rfind(b"\n") + 1] or head)
    stripped = text.lstrip("\ufeff \t\r\n")
    if head.startswith(b"ooBinaryFile") or stripped.startswith(("File type", '"ooTextFile', "ooTextFile")):
        return "textgrid"
    if stripped[:1] in ("{", "["):
        name = sniff_json(stripped) or (sniff_json(read_text(path).lstrip()) if len(head) == HEAD_BYTES else None)
    else:
        name = sniff_lines(text, path.suffix.lower())
    if name is None:
        raise DataError(
            f"{path}: no alignment format that we know ({', '.join(FORMATS)}); "
            f"name it with format=..., or, if it holds no word times, import it as a corpus"
        )
    return name
