"""One scored item: what a model says of both candidates.

Enters: items with the log-likelihoods of their candidates. Leaves: `Choice`s, one per item and layout, also as Parquet.
The one decision worth knowing: a choice holds sums and counts, never a decision; every protocol of its layout can be
computed from the file, also years later. Needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from speechscale.errors import DataError
from speechscale.evals.protocols import LIKELIHOOD_FIELDS, Layout, Likelihood, Protocol
from speechscale.files import complete_file

STAMP_KEY = b"speechscale.scores"
SCORES_KIND = "scores-2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Both candidates of an item in one direction and layout.

    Args:
        benchmark: folder or task the item is of, "" in a study. direction: "ss", "st", "ts", "tt".
        identical: the model reads the same tokens for both; nothing can decide them.
    """

    benchmark: str = ""
    id: str
    set: str
    direction: str
    layout: Layout
    pair: str
    tag: str = ""
    phenomenon: str = ""
    speaker: str = ""
    identical: bool = False
    good: Likelihood
    bad: Likelihood

    def margin(self, protocol: Protocol) -> float:
        """Value of the good candidate minus that of the bad one. Raises DataError where the protocol does not apply."""
        assert protocol.layout == self.layout, f"{self.id}: scored as {self.layout}, '{protocol.name}' needs another"
        margin = self.good.value(protocol) - self.bad.value(protocol)
        if margin != margin:
            lacks = "words" if protocol.normalization == "per_word" else "seconds"
            raise DataError(
                f"{self.id} ({self.direction}): protocol '{protocol.name}' divides by {lacks}, which this candidate "
                "has not; use normalization=mean or sum"
            )
        return margin

    def correct(self, protocol: Protocol) -> float:
        """1 if the good candidate is preferred, `protocol.ties` if neither, else 0."""
        margin = self.margin(protocol)
        return protocol.ties if abs(margin) <= protocol.tie_nats else float(margin > 0)


_NAMES = ("benchmark", "id", "set", "direction", "pair", "tag", "phenomenon", "speaker")


def schema() -> pa.Schema:
    """Columns of a table of choices: names, layout, then good_* and bad_* of each `Likelihood` field."""
    kinds = {"int": pa.int32(), "float": pa.float64()}
    values = [(entry.name, kinds[str(entry.type)]) for entry in fields(Likelihood)]
    return pa.schema(
        [pa.field(name, pa.string(), nullable=False) for name in (*_NAMES, "start", "markers")]
        + [pa.field("identical", pa.bool_(), nullable=False)]
        + [pa.field(f"{side}_{name}", kind, nullable=False) for side in ("good", "bad") for name, kind in values]
    )


def to_row(choice: Choice) -> dict[str, Any]:
    """A choice as flat JSON."""
    row: dict[str, Any] = {name: getattr(choice, name) for name in _NAMES}
    row |= {"start": choice.layout.start, "markers": choice.layout.markers, "identical": choice.identical}
    for side in ("good", "bad"):
        row |= {f"{side}_{name}": getattr(getattr(choice, side), name) for name in LIKELIHOOD_FIELDS}
    return row


def from_row(row: Mapping[str, Any]) -> Choice:
    """The inverse of `to_row`."""
    good, bad = (Likelihood(**{name: row[f"{side}_{name}"] for name in LIKELIHOOD_FIELDS}) for side in ("good", "bad"))
    return Choice(
        **{name: row[name] for name in _NAMES},
        layout=Layout(row["start"], row["markers"]),
        identical=row["identical"],
        good=good,
        bad=bad,
    )


def write_choices(path: Path, scored: Sequence[Choice], stamp: Mapping[str, Any] | None = None) -> None:
    """Write one row per item, direction and layout as Parquet, all at once or not at all.

    Args:
        stamp: what made them (see `results.Stamp`); must be JSON. Protocols need no place in it: the rows serve all.
    """
    stamped = {STAMP_KEY: json.dumps({"kind": SCORES_KIND, **(stamp or {})}).encode()}
    table = pa.Table.from_pylist([to_row(choice) for choice in scored], schema=schema().with_metadata(stamped))
    with complete_file(Path(path)) as draft:
        pq.write_table(table, draft, compression="zstd")


def read_choices(path: Path) -> tuple[list[Choice], dict[str, Any]]:
    """Read what `write_choices` wrote: the items and the stamp. Raises DataError for any other file."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: not readable as Parquet ({error}); score the items again") from error
    saved = (table.schema.metadata or {}).get(STAMP_KEY)
    stamp = {} if saved is None else json.loads(saved)
    if stamp.get("kind") != SCORES_KIND or not table.schema.equals(schema()):
        raise DataError(
            f"{path}: not a table of scored items of this version (kind {stamp.get('kind')!r}); score the items again"
        )
    return [from_row(row) for row in table.to_pylist()], stamp
