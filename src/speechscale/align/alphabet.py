"""What a CTC model writes with: characters, ARPAbet phones or IPA symbols.

Enters: a model's vocabulary. Leaves: token ids of words. The one decision worth knowing: nothing is lost on the way: a
character or phone that the vocabulary lacks becomes `STAR`, which matches any stretch, and the word is reported.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from speechscale.align.phones import ARPABET, IPA
from speechscale.align.viterbi import STAR
from speechscale.errors import DataError

KINDS = ("characters", "arpabet", "ipa")
_IPA_ONLY = ("ʃ", "ŋ", "ɪ", "θ", "ð", "ʊ")
_SILENT = frozenset("'’-")
"""Characters of a word that are left out where a vocabulary lacks them, instead of becoming a star."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alphabet:
    """Token ids of a vocabulary.

    Args:
        kind: "characters", "arpabet" or "ipa". ids: label -> id, without special tokens.
        blank: CTC's blank. delimiter: what stands between words, if the model writes it.
    """

    kind: str
    ids: Mapping[str, int]
    blank: int
    delimiter: int | None

    @classmethod
    def of(cls, vocabulary: Mapping[str, int], *, blank: int, units: str = "auto") -> Alphabet:
        """Read a vocabulary.

        Args:
            units: "characters", "phones" or "auto": phones if it has ARPAbet labels, or IPA symbols beyond a to z.

        Raises:
            DataError: phones are wanted and it has none; no label at all.
        """
        special = {label for label in vocabulary if len(label) > 1 and label[0] in "<[" and label[-1] in ">]"}
        delimiter = next((vocabulary[label] for label in ("|", " ", "▁") if label in vocabulary), None)
        ids = {
            label: id
            for label, id in vocabulary.items()
            if label not in special and id != blank and id != delimiter and label.strip()
        }
        # Stress digits ("AH0") are cut; the first spelling of a phone wins.
        arpabet: dict[str, int] = {}
        for label, id in sorted(ids.items(), key=lambda entry: entry[1]):
            arpabet.setdefault(label.upper().rstrip("012"), id)
        if units != "characters" and sum(phone in arpabet for phone in ARPABET) >= 30:
            return cls(kind="arpabet", ids=arpabet, blank=blank, delimiter=delimiter)
        if units != "characters" and sum(symbol in ids for symbol in _IPA_ONLY) >= 4:
            return cls(kind="ipa", ids=ids, blank=blank, delimiter=delimiter)
        if units == "phones" or not ids:
            raise DataError(
                f"ctc aligner: the vocabulary has {len(ids)} labels and no ARPAbet or IPA phones "
                f"({', '.join(list(ids)[:8])}, ...); use units='characters' or another model"
            )
        return cls(kind="characters", ids=ids, blank=blank, delimiter=delimiter)

    @property
    def phones(self) -> bool:
        return self.kind != "characters"

    def spell(self, word: str) -> list[int]:
        """Token ids of a word's characters. Example (a b in the vocabulary): "abé" -> [id of a, id of b, STAR]"""
        ids: list[int] = []
        for character in word:
            found = self._character(character)
            if found is not None:
                ids.append(found)
            elif character not in _SILENT:
                ids.append(STAR)
        return ids or [STAR]

    def _character(self, character: str) -> int | None:
        plain = unicodedata.normalize("NFKD", character)[:1]
        for form in (character, character.lower(), character.upper(), plain, plain.lower(), plain.upper()):
            if form in self.ids:
                return self.ids[form]
        return None

    def sound(self, phones: str) -> list[int]:
        """Token ids of ARPAbet phones. Example (IPA): "HH AW" -> [id of h, id of aʊ]"""
        ids: list[int] = []
        for phone in phones.split():
            ids += self._phone(phone)
        return ids or [STAR]

    def _phone(self, phone: str) -> list[int]:
        if self.kind == "arpabet":
            return [self.ids.get(phone, STAR)]
        for spelling in IPA[phone]:
            symbols = spelling.split()
            if all(symbol in self.ids for symbol in symbols):
                return [self.ids[symbol] for symbol in symbols]
        return [STAR]
