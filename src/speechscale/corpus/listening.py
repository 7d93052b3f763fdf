"""Open the audio of many utterances, by header or by decoding.

Enters: a stream of utterances. Leaves: the same stream with what was heard of each, in the same order for any number of
threads. The one decision worth knowing: nothing raises here; an unreadable file is a finding like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from speechscale.corpus.readers.admit import AudioFiles
from speechscale.corpus.readers.base import TAR_MARK
from speechscale.errors import DataError
from speechscale.records import Utterance
from speechscale.speech.audio import stream_audio
from speechscale.speech.loudness import LoudnessMeter

CHUNK = 256
HEAD_BYTES = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is known of one utterance's audio.

    Args:
        duration_s: of the utterance, None when the file cannot be opened. file_s, channels: of its file.
        problem: why it cannot be read, "" if it can.
        head: size and hash of the first 16 KiB, to find equal files; None for members of tars and decoded audio.
        sha256: of the decoded samples; "" when not decoded.
        silent: all samples are zero. clipped_share: of the samples.
    """

    duration_s: float | None = None
    file_s: float | None = None
    channels: int = 0
    problem: str = ""
    head: tuple[int, bytes] | None = None
    sha256: str = ""
    silent: bool = False
    clipped_share: float = 0.0


def listen(
    utterances: Iterator[Utterance], files: AudioFiles, *, decode: bool = False, heads: bool = True, workers: int = 1
) -> Iterator[tuple[Utterance, Heard]]:
    """Pair each utterance with what is heard; memory holds 256 utterances and a block of audio per thread.

    Args:
        decode: decode each utterance's part. heads: also look for equal files.
    """

    def one(utterance: Utterance) -> Heard:
        return _hear(utterance, files, decode, heads)

    if workers == 1:
        yield from ((utterance, one(utterance)) for utterance in utterances)
        return
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(utterances, CHUNK)):
            yield from zip(chunk, pool.map(one, chunk), strict=True)


def _hear(utterance: Utterance, files: AudioFiles, decode: bool, heads: bool) -> Heard:
    try:
        audio = files.locate(utterance.audio)
        facts = files.facts(audio)
        end_s = facts.duration_s if utterance.end_s is None else utterance.end_s
        duration_s = min(end_s, facts.duration_s) - utterance.start_s
    except (DataError, OSError) as error:
        return Heard(problem=str(error))
    if decode and duration_s > 0:
        try:
            sha256, silent, clipped = _decode(utterance, files, facts.sample_rate_hz)
        except (DataError, OSError) as error:
            problem = str(error).replace(f"{files.path('')}/", "")
            return Heard(duration_s=duration_s, file_s=facts.duration_s, channels=facts.channels, problem=problem)
        return Heard(
            duration_s=duration_s,
            file_s=facts.duration_s,
            channels=facts.channels,
            sha256=sha256,
            silent=silent,
            clipped_share=clipped,
        )
    head = _head(files, audio) if heads and TAR_MARK not in audio else None
    return Heard(duration_s=duration_s, file_s=facts.duration_s, channels=facts.channels, head=head)


def _decode(utterance: Utterance, files: AudioFiles, rate_hz: int) -> tuple[str, bool, float]:
    """Checksum of the samples, whether all are zero, share that is clipped; one block in memory."""
    digest, silent, meter = hashlib.sha256(f"{rate_hz}\0".encode()), True, LoudnessMeter(rate_hz)
    for block in stream_audio(
        files.path(utterance.audio),
        sample_rate_hz=None,
        start_s=utterance.start_s,
        end_s=utterance.end_s,
        channel=utterance.channel,
    ):
        digest.update(block.tobytes())
        silent = silent and not block.any()
        meter.add(block)
    return digest.hexdigest(), silent, meter.result().clipped_share


def _head(files: AudioFiles, audio: str) -> tuple[int, bytes]:
    with files.path(audio).open("rb") as stream:
        head = stream.read(HEAD_BYTES)
        return stream.seek(0, 2), hashlib.sha256(head).digest()
