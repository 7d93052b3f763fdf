"""What two results must share to be compared, and which items they share.

Enters: two systems' choices and what their results folders say of them. Leaves: the items both have, and what differs
though it should not, in words. The one decision worth knowing: model, vocabulary and speech tokenizer may differ, they
are what is compared; data, protocol definitions, precision and the rule for long items may not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.choices import Choice
from speechscale.evals.protocols import Layout, Protocol, get_protocol
from speechscale.evals.results import Results

SHOWN = 3
"""So many ids or faults are named; the rest are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A system with its items: results and choices of its results folder."""

    name: str
    results: Results
    choices: Sequence[Choice]


Key = tuple[str, str, str, Layout]


def title_of(benchmark: str, set_name: str, direction: str = "", tag: str = "") -> str:
    """What an accuracy is of, for people. Example: 'sblimp dev ss'; a set called like its benchmark is named once"""
    named = " ".join(filter(None, (*dict.fromkeys((benchmark, set_name)), direction)))
    return named + (f" ({tag})" if tag else "")


@dataclass(frozen=True, slots=True)
class Joined:
    """Items of both by benchmark, set, direction, layout and id.

    Args:
        pairs: (a's choice, b's choice) per group, in a's order. only_a, only_b: how many items only one has, by group.
        strangers: ids whose pair, phenomenon or tag differ.
    """

    pairs: dict[Key, list[tuple[Choice, Choice]]]
    only_a: Counter[Key]
    only_b: Counter[Key]
    strangers: tuple[str, ...]


def join(a: Scored, b: Scored) -> Joined:
    """Match the items of two systems. Raises DataError: a system has an item twice."""
    left, right = _by_key(a), _by_key(b)
    pairs: dict[Key, list[tuple[Choice, Choice]]] = {}
    only_a, only_b = Counter[Key](), Counter[Key]()
    strangers = []
    for key, choices in left.items():
        for id, choice in choices.items():
            other = right.get(key, {}).get(id)
            if other is None:
                only_a[key] += 1
                continue
            pairs.setdefault(key, []).append((choice, other))
            if (choice.pair, choice.phenomenon, choice.tag) != (other.pair, other.phenomenon, other.tag):
                strangers.append(id)
    for key, choices in right.items():
        only_b[key] += sum(id not in left.get(key, {}) for id in choices)
    return Joined(pairs, +only_a, +only_b, tuple(strangers))


def _by_key(side: Scored) -> dict[Key, dict[str, Choice]]:
    found: dict[Key, dict[str, Choice]] = {}
    for choice in side.choices:
        items = found.setdefault((choice.benchmark, choice.set, choice.direction, choice.layout), {})
        if choice.id in items:
            raise DataError(
                f"{side.name}: item {choice.id} ({choice.set} {choice.direction}) is there twice; score again"
            )
        items[choice.id] = choice
    return found


def shared_protocols(a: Scored, b: Scored, asked: Sequence[str] = ()) -> list[Protocol]:
    """The protocols to compare by, as a's results define them; by default all that both were measured under.

    A protocol asked for that is in neither file is read from its text: scores serve every protocol of their layout.

    Raises:
        DataError: no protocol in common, or a name that nobody knows.
    """
    mine, other = a.results.protocols, b.results.protocols
    names = list(asked) or [name for name in mine if name in other]
    if not names:
        raise DataError(
            f"{a.name} ({', '.join(mine)}) and {b.name} ({', '.join(other)}) share no protocol; name one of the same "
            "layout with --protocol, or evaluate them again"
        )
    return [_defined(name, mine.get(name) or other.get(name)) for name in names]


def measured_by_both(a: Scored, b: Scored) -> set[tuple[str, str]]:
    """(benchmark, protocol) of which both have metrics."""
    mine, other = ({(m["benchmark"], m["protocol"]) for m in side.results.metrics} for side in (a, b))
    return mine & other


def _defined(name: str, definition: Mapping[str, Any] | None) -> Protocol:
    if definition is None:
        return get_protocol(name)
    values = {entry.name: definition[entry.name] for entry in fields(Protocol) if entry.name in definition}
    return Protocol(**{**values, "name": name, "layout": Layout(definition["start"], definition["markers"])})


def unlike(a: Scored, b: Scored, protocols: Sequence[Protocol], joined: Joined) -> list[str]:
    """Everything that differs though it should not, a phrase each; empty when the two were measured alike."""
    return [*_unlike_stamps(a, b, protocols), *_unlike_items(a, b, joined)]


def _unlike_stamps(a: Scored, b: Scored, protocols: Sequence[Protocol]) -> Iterator[str]:
    for key in ("precision", "long"):
        yield from _unlike(key, a.results.stamp.get(key), b.results.stamp.get(key))
    for name in sorted(a.results.benchmarks.keys() & b.results.benchmarks.keys()):
        mine, other = a.results.benchmarks[name], b.results.benchmarks[name]
        for key in ("task", "version", "sha256"):
            yield from _unlike(f"benchmark {name} {key}", mine.get(key), other.get(key))
    for protocol in protocols:
        definitions = [(side.name, side.results.protocols.get(protocol.name)) for side in (a, b)]
        for key, value in protocol.stamp().items():
            for name, definition in definitions:
                if definition is not None and definition.get(key) != value:
                    yield f"protocol {protocol.name}: {key} is {definition.get(key)!r} in {name}, not {value!r}"


def _unlike(what: str, mine: Any, other: Any) -> Iterator[str]:
    if mine != other:
        yield f"{what}: {_brief(mine)} against {_brief(other)}"


def _unlike_items(a: Scored, b: Scored, joined: Joined) -> Iterator[str]:
    """Items that one lacks of a set both have, and items that are not the same though they have one id."""
    for side, only in ((a, joined.only_a), (b, joined.only_b)):
        for key, count in only.items():
            if key in joined.pairs:
                yield f"{title_of(*key[:3])}: {count} of {count + len(joined.pairs[key])} items only in {side.name}"
    if joined.strangers:
        shown = ", ".join(joined.strangers[:SHOWN]) + (", ..." if len(joined.strangers) > SHOWN else "")
        yield f"{len(joined.strangers)} items of another pair, phenomenon or tag ({shown})"


def notes(a: Scored, b: Scored, joined: Joined) -> list[str]:
    """What else a reader of a comparison must know."""
    mine, other = a.results.stamp, b.results.stamp
    said = []
    if mine.get("speech_tokenizer") != other.get("speech_tokenizer"):
        said.append("the speech tokenizers differ: decisions compare, log-likelihoods do not")
    elif mine.get("vocabulary") != other.get("vocabulary"):
        said.append("the vocabularies differ: decisions compare, log-likelihoods do not")
    models = [(stamp.get("model") or {}).get("sha256") for stamp in (mine, other)]
    if models[0] is not None and models[0] == models[1]:
        said.append("both are the same model, by checksum")
    ours, theirs = mine.get("versions", {}), other.get("versions", {})
    changed = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if changed:
        said.append("versions differ: " + ", ".join(f"{n} {ours.get(n)} against {theirs.get(n)}" for n in changed))
    for side, only in ((a, joined.only_a), (b, joined.only_b)):
        lone = dict.fromkeys(f"{title_of(*key[:3])} ({key[3]})" for key in only if key not in joined.pairs)
        if lone:
            said.append(f"only in {side.name}, not compared: {', '.join(lone)}")
    return said


def _brief(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 40 else str(value)
