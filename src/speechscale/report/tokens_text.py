"""One document of tokens for a terminal, with color and without.

Enters: `Seen`. Leaves: rich text in which spoken and written words have their colors, or one plain string in which
speech stands in brackets. The one decision worth knowing: what a mark means is the same in both, and whatever a
transcript holds is shown, never obeyed: control characters are spelled out.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from speechscale.tokens.look_records import Part, Seen, SeenSpan

STYLES = {
    "text": "cyan",
    "speech": "bold yellow",
    "units": "dim",
    "pause": "dim italic",
    "marker": "magenta",
    "untimed": "cyan underline",
    "demoted": "red",
    "title": "bold",
    "facts": "dim",
}
UNTIMED, DEMOTED, DOUBLED = "*", "^", "="


def rich_document(seen: Seen, *, ids: bool = False) -> Text:
    """Words in color, each spoken one with its units behind it; `ids` writes token ids behind what they spell."""
    text = Text()
    for line, style in _head(seen):
        text.append(line + "\n", STYLES[style])
    for span in seen.spans:
        _marker(text, span, ids)
        if span.modality == "text":
            for part in span.parts:
                text.append(_word(seen, part), STYLES[_style(seen, part)])
                text.append(_ids(part) if ids else "", STYLES["units"])
                text.append(" ")
            continue
        units = _unit_names(seen, span, ids)
        for part in span.parts:
            text.append(_sound(seen, part), STYLES["pause" if part.kind == "pause" else "speech"])
            text.append(" " if part.kind != "run" else "")
            text.append("".join(f"{next(units)} " for _ in part.ids), STYLES["units"])
    text.rstrip()
    for line in _tail(seen):
        text.append("\n" + line, STYLES["facts"])
    return text


def plain_document(seen: Seen, *, ids: bool = False) -> str:
    """The same without color. Example: `<text> on the <speech> [speech: cat sat | 3 49 7]`"""
    words: list[str] = []
    for span in seen.spans:
        if span.marker:
            words.append(span.marker + (f"/{span.marker_id}" if ids else ""))
        if span.modality == "text":
            words += [_word(seen, part) + (_ids(part) if ids else "") for part in span.parts]
            continue
        said = " ".join(filter(None, (_sound(seen, part) for part in span.parts)))
        units = " ".join(_unit_names(seen, span, ids))
        words.append(f"[speech: {said + ' ' if said else ''}| {units}]" if units else f"[speech: {said} | no unit]")
    return "\n".join([*(line for line, _ in _head(seen)), " ".join(words), *_tail(seen)])


def legend(*, color: bool) -> Text:
    """What the colors and marks mean."""
    text = Text()
    if color:
        for name, meaning in (("text", "read"), ("speech", "heard"), ("units", "its units"), ("pause", "kept pause")):
            text.append(meaning, STYLES[name])
            text.append("  ")
        text.append("<speech>", STYLES["marker"])
        text.append(" marker  ")
    else:
        text.append("[speech: words | units]  ")
    text.append(f"{UNTIMED} no time  {DEMOTED} drawn as speech, got no unit  {DOUBLED} unit of two spans")
    return text


def printable(text: str) -> str:
    """Spell out control characters, so that no text can move the cursor or color the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _head(seen: Seen) -> list[tuple[str, str]]:
    lines = [(f"{printable(seen.title)} ({seen.stream} {seen.number})", "title")]
    if seen.drawn:
        lines.append((f"  {seen.drawn}", "facts"))
    return [*lines, (f"  {'; '.join(seen.facts)}", "facts")]


def _tail(seen: Seen) -> list[str]:
    return [f"  note: {printable(note)}" for note in seen.notes]


def _marker(text: Text, span: SeenSpan, ids: bool) -> None:
    if span.marker:
        text.append(span.marker, STYLES["marker"])
        text.append((f"/{span.marker_id}" if ids else "") + " ", STYLES["units"])


def _style(seen: Seen, part: Part) -> str:
    if part.word is None:
        return "text"
    word = seen.words[part.word]
    return "demoted" if word.demoted else "text" if word.timed else "untimed"


def _word(seen: Seen, part: Part) -> str:
    """A word with its marks."""
    if part.word is None:
        return printable(part.text)
    word = seen.words[part.word]
    return printable(part.text) + (UNTIMED if not word.timed else "") + (DEMOTED if word.demoted else "")


def _sound(seen: Seen, part: Part) -> str:
    """A word, or how long a pause is."""
    if part.kind == "pause":
        length = part.stop_frame - part.start_frame
        return f"(pause {seen.seconds(length):.2f} s)" if seen.frame_rate_hz else "(pause)"
    return _word(seen, part)


def _ids(part: Part) -> str:
    return "/" + ",".join(map(str, part.ids))


def _unit_names(seen: Seen, span: SeenSpan, ids: bool) -> Iterator[str]:
    """Every token of a speech span, as its units."""
    unit = span.first_unit
    for part in span.parts:
        for token, name in zip(part.ids, part.names, strict=True):
            stop = unit + name.count("+") + 1
            doubled = any(seen.units[u].spans > 1 for u in range(unit, stop))
            yield name + (DOUBLED if doubled else "") + (f"/{token}" if ids else "")
            unit = stop
