"""Which column is what: names given, and names known.

Enters: the headings of a table and what the caller named. Leaves: a `Choice`.
The one decision worth knowing: what is named beats what is known; a heading is known by its name without its unit,
letter case and punctuation; two headings known for one role are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from speechscale.errors import DataError
from speechscale.scaling.tables.quantities import heading_unit
from speechscale.scaling.tables.run_table import ROLES, Role
from speechscale.settings import nearest

OWN = ("arm", "params_total", "tokens_seen", "loss_speech_final", "budget_flops")
"""Headings by which a study's own runs.csv is known."""
_OWN_ROLES: dict[Role, str] = {
    "params_total": "params_total",
    "params_non_embedding": "params_non_embedding",
    "unique_tokens": "tokens_unique",
    "epochs": "speech_epochs",
    "text_lm_flops": "flops_text_lm_exact",
    "budget_flops": "budget_flops",
    "learning_rate": "learning_rate",
    "schedule": "schedule",
    "tokenizer": "units",
    "seed": "seed",
    "loss_se": "loss_speech_se",
}
KNOWN = {
    "n": ("n", "params", "parameters", "num params", "n params", "num parameters", "model size", "params total"),
    "d": ("d", "tokens", "num tokens", "n tokens", "training tokens", "train tokens", "tokens seen"),
    "c": ("c", "flops", "flop", "compute", "training flop", "training flops", "train flops", "total flops"),
    "loss": ("loss", "final loss", "val loss", "validation loss", "eval loss", "test loss"),
    "group": ("group", "arm"),
}
_ROLE_NAMES: dict[str, Role] = {
    "lr": "learning_rate",
    "run name": "run",
    **{role.replace("_", " "): role for role in ROLES if role != "run"},
}


@dataclass(slots=True, kw_only=True)
class Choice:
    """Columns by what they are. second_group: named before the group (a study's part). notes: to be echoed."""

    n: str | None = None
    d: str | None = None
    c: str | None = None
    loss: str | None = None
    group: str | None = None
    second_group: str | None = None
    metrics: tuple[str, ...] = ()
    extras: dict[Role, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose_columns(
    headings: Sequence[str],
    table: str,
    *,
    n: str | None = None,
    d: str | None = None,
    c: str | None = None,
    loss: str | None = None,
    metrics: Sequence[str] = (),
    group: str | None = None,
    columns: Mapping[Role, str] | Mapping[str, str],
) -> Choice:
    """Find the columns of a table.

    Raises:
        DataError: a named column is not there, an unknown role, or two columns known for one role.
    """
    given = {"n": n, "d": d, "c": c, "loss": loss, "group": group}
    for column in (*given.values(), *metrics, *columns.values()):
        if column is not None and column not in headings:
            raise DataError(f"{table}: no column '{column}'{nearest(column, list(headings))}")
    for role in columns:
        if role not in ROLES:
            raise DataError(f"{table}: --col {role}=...: unknown role{nearest(role, list(ROLES))}")
    own = set(OWN) <= set(headings)
    choice = _own(headings) if own else Choice()
    for slot, column in given.items():
        if column is not None:
            setattr(choice, slot, column)
    if group is not None:
        choice.second_group = None
    if own and n is None and c is not None and d is not None:
        choice.n = None
    if not own:
        _recognize(choice, headings, table)
    if metrics:
        choice.metrics = tuple(metrics)
    named: dict[Role, str] = {role: columns[role] for role in ROLES if role in columns}
    choice.extras = {**choice.extras, **named}
    return choice


def _own(headings: Sequence[str]) -> Choice:
    parts = "part" in headings
    return Choice(
        n="params_total",
        d="tokens_seen",
        loss="loss_speech_final",
        group="arm",
        second_group="part" if parts else None,
        metrics=tuple(h for h in headings if h.startswith("acc_") and not h.endswith(("_n", "_se"))),
        extras={role: column for role, column in _OWN_ROLES.items() if column in headings},
        notes=["runs.csv of a study: N = params_total, D = tokens_seen, loss = loss_speech_final, by part and arm"],
    )


def _recognize(choice: Choice, headings: Sequence[str], table: str) -> None:
    plain: dict[str, list[str]] = {}
    for heading in headings:
        plain.setdefault(_plain(heading), []).append(heading)
    taken = {choice.n, choice.d, choice.c, choice.loss, choice.group}
    for slot in ("n", "d", "c", "loss", "group"):
        if getattr(choice, slot) is not None:
            continue
        if slot in ("n", "d", "c") and sum(x is not None for x in (choice.n, choice.d, choice.c)) >= 2:
            continue
        found = [h for name in KNOWN[slot] for h in plain.get(name, []) if h not in taken]
        if len(found) > 1:
            raise DataError(f"{table}: columns '{found[0]}' and '{found[1]}' could both be {slot}; name one: --{slot}")
        if found:
            setattr(choice, slot, found[0])
            choice.notes.append(f"column '{found[0]}' taken as {slot.upper() if len(slot) == 1 else slot}")
    for name, role in _ROLE_NAMES.items():
        found = [h for h in plain.get(name, []) if role not in choice.extras]
        if found:
            choice.extras[role] = found[0]
            if found[0] not in taken:
                choice.notes.append(f"column '{found[0]}' taken as {role}")


def _plain(heading: str) -> str:
    return re.sub(r"[\s_\-./]+", " ", heading_unit(heading)[0]).strip().lower()
