"""Count what was dropped and why; write it down.

Enters: (id, reason, remedy) of every utterance that cannot be used. Leaves: `skips.jsonl`, one line per drop, and the
check that kept + dropped = read. The one decision worth knowing: a bad utterance is dropped with a reason and the rest
goes on; a silent loss is a bug of ours and trips an assert.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from speechscale.errors import DataError
from speechscale.files import complete_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """One dropped utterance: which, why, and what would make it usable."""

    id: str
    reason: str
    remedy: str


@dataclass(slots=True)
class SkipLog:
    """Collect skips in the order they happen.

    Example: log = SkipLog(); log.add("0042", "the transcript is empty", "write what is said"); log.write(path)
    """

    skips: list[Skip] = field(default_factory=list)

    def add(self, id: str, reason: str, remedy: str) -> None:
        self.skips.append(Skip(id=id, reason=reason, remedy=remedy))

    def __len__(self) -> int:
        return len(self.skips)

    def __iter__(self) -> Iterator[Skip]:
        return iter(self.skips)

    @property
    def ids(self) -> list[str]:
        return [skip.id for skip in self.skips]

    def remedies(self) -> dict[str, int]:
        """How many skips each remedy would undo, most first."""
        return dict(Counter(skip.remedy for skip in self.skips).most_common())

    def first(self, count: int = 3) -> str:
        """The first reasons as one line, for an error message. Example: 'a: file is empty; b: no transcript; ...'"""
        shown = "; ".join(f"{skip.id}: {skip.reason}" for skip in self.skips[:count])
        return shown + ("; ..." if len(self.skips) > count else "")

    def check(self, *, read: int, kept: int, since: int = 0) -> None:
        """Assert that nothing got lost: kept + dropped = read, counting the drops after the first `since`."""
        dropped = len(self.skips) - since
        assert kept + dropped == read, f"{kept} kept + {dropped} dropped is not {read} read"

    def write(self, path: Path) -> None:
        """Write `skips.jsonl` atomically: one object {id, reason, remedy} per line; an empty file when all is well."""
        with complete_file(Path(path)) as part:
            lines = (json.dumps(asdict(skip), ensure_ascii=False) + "\n" for skip in self.skips)
            with part.open("w", encoding="utf-8", newline="\n") as stream:
                stream.writelines(lines)


def read_skips(path: Path) -> SkipLog:
    """Read `skips.jsonl` back. Raises DataError naming the line that is not a skip."""
    log = SkipLog()
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            log.skips.append(Skip(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: not a skip record ({error}); run the step again") from error
    return log
