"""The three exception types of speechscale.

    ValueError
    |-- DataError     something the user gave (file, item, field) cannot be used
    |-- StaleStep     a step's recipe differs from the one its record was made with
    ImportError
    |-- MissingExtra  an optional feature is not installed

Every message says who, what came, what was allowed and what to do.
"""

from __future__ import annotations


class DataError(ValueError):
    """Input that cannot be used; the message names the item and the remedy."""


class StaleStep(ValueError):
    """A recorded result belongs to another recipe; the message lists the differing fields."""


class MissingExtra(ImportError):
    """An optional dependency is missing; the message gives the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the extra '{extra}'; install it with: pip install 'speechscale[{extra}]' "
            f"(in a checkout: pip install -c constraints.txt -e '.[{extra}]')"
        )
        self.what, self.extra = what, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.what, self.extra)  # workers send it to their parent
