"""Phone names: ARPAbet of the CMU dictionary, and what espeak-ng and IPA models call the same sounds.

Enters: labels of the voice engine, or ARPAbet phones. Leaves: ARPAbet phones, or the IPA spellings under which a model
may list them. The one decision worth knowing: everything maps to the nearest of the 39 phones of the CMU dictionary; a
test holds that every label of the engine has one.
"""

from __future__ import annotations

from collections.abc import Sequence

from speechscale.voices.word_events import PAUSE, plain_label

_NAMES = "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
ARPABET = tuple(_NAMES.split())
"""The phones of the CMU dictionary, without stress."""

_ESPEAK = {
    **dict.fromkeys(("@", "@-", "@2", "a#", "V", "VR"), "AH"),
    **dict.fromkeys(("0", "A:", "O2"), "AA"),
    **dict.fromkeys(("I", "I#", "I2"), "IH"),
    **dict.fromkeys(("i", "i:"), "IY"),
    **dict.fromkeys(("a", "aa", "A"), "AE"),
    **dict.fromkeys(("3", "3:", "@r"), "ER"),
    **dict.fromkeys(("t", "t#", "t2", "?", "t["), "T"),
    **dict.fromkeys(("n", "n-"), "N"),
    **dict.fromkeys(("r", "r-", "R"), "R"),
    **dict.fromkeys(("O@", "o@", "O@r"), "AO R"),
    **dict.fromkeys(("aI", "aI2"), "AY"),
    **dict.fromkeys(("aI3",), "AY ER"),
    **dict.fromkeys(("aI@",), "AY AH"),
    **dict.fromkeys(("i@3", "IR"), "IH R"),
    **dict.fromkeys(("@L", "@5"), "AH L"),
    **dict.fromkeys(("w", "w#"), "W"),
    "i@": "IY AH",
    "A@": "AA R",
    "e@": "EH R",
    "U@": "UH R",
    "O:": "AO",
    "O": "AO",
    "E": "EH",
    "U": "UH",
    "u:": "UW",
    "u": "UW",
    "eI": "EY",
    "oU": "OW",
    "OI": "OY",
    "aU": "AW",
    "D": "DH",
    "T": "TH",
    "S": "SH",
    "Z": "ZH",
    "N": "NG",
    "dZ": "JH",
    "tS": "CH",
    "j": "Y",
    "h": "HH",
    "x": "K",
    ";": "",
    PAUSE: "",
    **{label: label.upper() for label in ["b", "d", "f", "g", "k", "l", "m", "p", "s", "v", "z"]},
}
_RHOTIC = frozenset({"A@", "e@", "O@", "o@", "U@", "i@3", "aI3", "3", "3:"})
"""Labels that hold an r sound; a linking r behind them is the same r."""

IPA = {
    "AA": ("ɑː", "ɑ", "ɒ"),
    "AE": ("æ", "a"),
    "AH": ("ʌ", "ə", "ɐ"),
    "AO": ("ɔː", "ɔ", "ɒ"),
    "AW": ("aʊ", "a ʊ"),
    "AY": ("aɪ", "a ɪ"),
    "B": ("b",),
    "CH": ("tʃ", "t ʃ"),
    "D": ("d",),
    "DH": ("ð",),
    "EH": ("ɛ", "e"),
    "ER": ("ɚ", "ɜː", "ɝ", "ə ɹ", "ə r"),
    "EY": ("eɪ", "e ɪ", "e"),
    "F": ("f",),
    "G": ("ɡ", "g"),
    "HH": ("h",),
    "IH": ("ɪ", "i"),
    "IY": ("iː", "i"),
    "JH": ("dʒ", "d ʒ"),
    "K": ("k",),
    "L": ("l",),
    "M": ("m",),
    "N": ("n",),
    "NG": ("ŋ",),
    "OW": ("oʊ", "əʊ", "o ʊ", "o"),
    "OY": ("ɔɪ", "ɔ ɪ"),
    "P": ("p",),
    "R": ("ɹ", "r"),
    "S": ("s",),
    "SH": ("ʃ",),
    "T": ("t",),
    "TH": ("θ",),
    "UH": ("ʊ", "u"),
    "UW": ("uː", "u"),
    "V": ("v",),
    "W": ("w",),
    "Y": ("j",),
    "Z": ("z",),
    "ZH": ("ʒ",),
}
"""IPA spellings of a phone, best first; a blank separates symbols of their own."""


def from_espeak(labels: Sequence[str]) -> list[str]:
    """ARPAbet phones of engine labels, stress marks and pauses dropped; an unknown label gives none.

    Example: ["h", "@", "l", "'oU"] -> ["HH", "AH", "L", "OW"]
    """
    phones: list[str] = []
    before = ""
    for label in map(plain_label, labels):
        if label in ("r", "r-") and before in _RHOTIC:
            before = label
            continue
        phones += _ESPEAK.get(label, "").split()
        before = label
    return phones
