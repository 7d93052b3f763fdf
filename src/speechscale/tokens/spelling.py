"""Spelling: how units, merged subwords and modality markers are written in readable text and in tokenizer.json.

Enters: the name of a known convention or a format such as "<|u{}|> <|speech|> <|text|>". Leaves: names, and a pattern
that finds them. The one decision worth knowing: a merged subword is written by its units joined by dots, `<Un3.49.7>`,
so names are unique, can be read back, and tell the piece without a table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from speechscale.errors import DataError

SPELLINGS = {
    "slamkit": "<Un{}> <speech> <text>",
    "spiritlm": "[Hu{}] [Speech] [Text]",
    "speechgpt": "<{}> <sosp> <eosp>",
}
"""Known conventions as "unit speech-marker text-marker". SpeechGPT closes speech with `<eosp>`: it opens text again."""
DEFAULT_SPELLING = "slamkit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """Names of units and markers. Example: `Spelling.of("slamkit").unit(12)` is `<Un12>`."""

    before: str
    after: str
    speech: str
    text: str

    @classmethod
    def of(cls, spelling: str) -> Spelling:
        """Read a key of `SPELLINGS` or a format "unit speech-marker text-marker" with `{}` for the number.

        Raises:
            DataError: unknown name, or a format whose names could be confused.
        """
        parts = SPELLINGS.get(spelling, spelling).split()
        if len(parts) != 3 or parts[0].count("{}") != 1:
            raise DataError(
                f"spelling '{spelling}': allowed are {', '.join(SPELLINGS)}, or three names like "
                "'<|u{}|> <|speech|> <|text|>' (unit, marker of speech, marker of text)"
            )
        before, after = parts[0].split("{}")
        made = cls(before=before, after=after, speech=parts[1], text=parts[2])
        problem = made._problem()
        if problem:
            raise DataError(f"spelling '{spelling}': {problem}")
        return made

    def _problem(self) -> str:
        if not self.before or not self.after or _numeric(self.before[-1]) or _numeric(self.after[0]):
            return "the number of a unit must stand between two characters that are neither digits nor dots"
        if self.speech == self.text:
            return f"both markers are '{self.speech}'; give two"
        whole = re.compile(self._speech_pattern)
        confused = [marker for marker in (self.speech, self.text) if whole.fullmatch(marker)]
        return f"the marker '{confused[0]}' reads like a unit; choose another" if confused else ""

    @property
    def _speech_pattern(self) -> str:
        return rf"{re.escape(self.before)}[0-9]+(?:\.[0-9]+)*{re.escape(self.after)}"

    def pattern(self, others: Sequence[str]) -> re.Pattern[str]:
        """Matches every unit, subword, marker and the `others`; one group, for `re.split`."""
        names = sorted({self.speech, self.text, *others}, key=lambda name: (-len(name), name))
        return re.compile("(" + "|".join([*map(re.escape, names), self._speech_pattern]) + ")")

    def unit(self, unit: int) -> str:
        return f"{self.before}{unit}{self.after}"

    def piece(self, units: Sequence[int]) -> str:
        """Name of a subword. Example: (3, 49, 7) -> `<Un3.49.7>`"""
        return f"{self.before}{'.'.join(map(str, units))}{self.after}"


def _numeric(character: str) -> bool:
    return character.isdigit() or character == "."
