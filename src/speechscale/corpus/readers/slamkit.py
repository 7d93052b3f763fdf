"""Read slamkit's files: features.jsonl for the names, one JSON per utterance for words and times.

Enters: lines {"units", "duration", "file_name"} and STEM.json {"aligned_text": [[word, start, end], ...]} beside the
audio or in the folder that --map words=FOLDER names. Leaves: an `Entry` per line. The one decision worth knowing: the
units are not a corpus; they are read by `speechscale units convert`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from speechscale.corpus.readers.base import Entry, Found, Source, fault, json_line, lines_of
from speechscale.corpus.readers.columns import words_of
from speechscale.errors import DataError
from speechscale.skips import Skip


def slamkit_entries(source: Source) -> Iterator[Found]:
    """Stream features.jsonl. `source.columns["words"]` is the folder of the metadata, below the manifest's folder.

    Raises:
        DataError: a file of tokens, which names units and no audio.

    Source: github slp-rl/slamkit, README and slamkit/feature_extractor.
    """
    name = source.path.name
    home = source.path.parent.resolve()
    folder = home / source.columns["words"] if "words" in source.columns else None
    if folder is not None and not folder.resolve().is_relative_to(home):
        raise DataError(f"--map words={source.columns['words']}: leads out of {home}; give a folder below the manifest")
    for number, line in lines_of(source.path, name, source.meter):
        where = f"{name}, line {number}"
        if isinstance(line, Skip):
            yield line
            continue
        try:
            row = json_line(line)
            if isinstance(row, dict) and "audio_repr" in row:
                raise DataError("prepared tokens, which hold units and no audio; give slamkit's features.jsonl")
            path = row.get("file_name") if isinstance(row, dict) else None
            if not isinstance(path, str) or not path:
                raise DataError("no file_name; give slamkit's features.jsonl")
            entry = Entry(id="", where=where, audio=path, duration_s=None)
            stem = PurePosixPath(path).stem
            beside = source.path.parent / PurePosixPath(path).parent
            meta = (folder if folder is not None else beside.resolve()) / f"{stem}.json"
            if meta.is_file() and meta.resolve().is_relative_to(home):
                content = json.loads(meta.read_bytes())
                if not isinstance(content, dict) or not isinstance(content.get("aligned_text"), list):
                    raise DataError(f"{meta.name} has no list aligned_text; write [[word, start, end], ...]")
                words = words_of(content["aligned_text"])
                text = content.get("text") if isinstance(content.get("text"), str) else None
                entry = replace(entry, words=words, text=text)
            yield entry
        except (DataError, ValueError) as error:
            yield fault(f"{name}:{number}", where, str(error))
