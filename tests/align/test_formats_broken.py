"""Catches readers that crash on junk instead of naming it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from speechscale.align.formats import (
    FORMATS,
    Losses,
    read_alignments,
    read_segments,
)
from speechscale.errors import DataError
from tests.align.examples import FILES, saved

KEYS = (
    *(
        "w",
        "b",
        "d",
        "t",
        "words",
        "word",
        "text",
        "start",
        "end",
        "segments",
        "chunks",
        "timestamp",
        "tiers",
        "entries",
    ),
    *("aligned_text", "alignments", "tokens", "start_ts", "recording_id", "supervisions", "tracks", "cut", "alignment"),
    *("duration", "id", "recording", "channel", "whitespace", "name", "type"),
)
JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.sampled_from(["a", " b", "1.5", "", "nan"])
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)


def only_data_errors(path: Path, format: str) -> None:
    """Read in every way; anything but an answer or a DataError is a crash."""
    for repair in ("refuse", "drop_times"):
        losses = Losses()
        with contextlib.suppress(DataError):
            read_alignments(path, format, repair=repair, losses=losses)  # type: ignore[arg-type]
            losses.check()
            list(read_segments(path, format=format, repair=repair))  # type: ignore[arg-type]


@settings(max_examples=100, deadline=None)
@given(JUNK, st.sampled_from(["auto", *(n for n, f in FORMATS.items() if ".json" in f.suffixes)]))
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: Any, format: str) -> None:
    only_data_errors(saved(tmp_path_factory.getbasetemp(), "junk.json", content), format)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FILES), st.data())
def test_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, example: tuple[str, str, Any], data: st.DataObject
) -> None:
    """A cut, a replaced piece, a doubled line: of every format's example."""
    name, file, content = example
    path = saved(tmp_path_factory.getbasetemp(), "damaged" + Path(file).suffix, content)
    text = path.read_text(encoding="utf-8")
    at, until = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    piece = data.draw(
        st.sampled_from(["", "x", "-1", "nan", "1e999", '"', "\n", " ", "]", "\0", "\u00e9", text[at:until] * 2])
    )
    path.write_text(text[:at] + piece + text[until:], encoding="utf-8")
    only_data_errors(path, data.draw(st.sampled_from(["auto", name])))
