"""Guess how a written English word sounds, by rules; the last resort when no dictionary knows it.

Enters: a word of letters. Leaves: ARPAbet phones. The one decision worth knowing: rules are read top to bottom at each
position and the first that fits wins, with the letters before and behind as context; they are meant for names and rare
words, where an alignment needs the right consonants and about the right vowels, not a perfect pronunciation.
"""

from __future__ import annotations

import re
from functools import lru_cache

LETTER_NAMES = {
    "a": "EY",
    "b": "B IY",
    "c": "S IY",
    "d": "D IY",
    "e": "IY",
    "f": "EH F",
    "g": "JH IY",
    "h": "EY CH",
    "i": "AY",
    "j": "JH EY",
    "k": "K EY",
    "l": "EH L",
    "m": "EH M",
    "n": "EH N",
    "o": "OW",
    "p": "P IY",
    "q": "K Y UW",
    "r": "AA R",
    "s": "EH S",
    "t": "T IY",
    "u": "Y UW",
    "v": "V IY",
    "w": "D AH B AH L Y UW",
    "x": "EH K S",
    "y": "W AY",
    "z": "Z IY",
}
_FRONT = "(?=[eiy])"
_MAGIC = "(?=[bcdfgklmnprstvz]e(?:s|d)?$)"
"""A single consonant and a silent e at the end of the word: the vowel before says its name."""

_ENDINGS = """
ture$        CH ER
tures$       CH ER Z
ation        EY SH AH N
tion         SH AH N
ssion        SH AH N
sion         ZH AH N
cian         SH AH N
cious        SH AH S
tious        SH AH S
ious         IY AH S
ous$         AH S
ng$          NG
ng(?=s$)     NG
mb$          M
bt$          T
mn$          M
le$          AH L
les$         AH L Z
led$         AH L D
(?<=[td])ed$ IH D
(?<=[pkfsx])ed$ T
(?<=[^aeiou])ed$ D
(?<=[sxz])es$ IH Z
(?<=ch)es$   IH Z
(?<=sh)es$   IH Z
(?<=[cg])es$ IH Z
(?<=[aeiouy][^aeiouy])es$ Z
ing$         IH NG
ings$        IH NG Z
al$          AH L
ally$        AH L IY
ant$         AH N T
ent$         AH N T
ance$        AH N S
ence$        AH N S
ness$        N AH S
ment$        M AH N T
ism$         IH Z AH M
man$         M AH N
men$         M EH N
ham$         HH AH M
ton$         T AH N
ley$         L IY
ville$       V IH L
stein$       S T AY N
que$         K
"""
_GROUPS = f"""
^kn          N
^gn          N
^wr          R
^ps          S
^pn          N
^mc          M AH K
^x           Z
^rh          R
ough(?=t)    AO
ough$        OW
ough         AH F
augh         AO
eigh         EY
igh          AY
tch          CH
sch          SH
dge          JH
ch(?=[rl])   K
ch           CH
sh           SH
th           TH
ph           F
wh           W
gh           G
ck           K
cq           K
qu           K W
n(?=[kxg])   NG
sc{_FRONT}   S
cc{_FRONT}   K S
"""
_VOWELS = f"""
air          EH R
are$         EH R
ear          IH R
eer          IH R
eir          EH R
ier$         IY ER
our          AO R
oor          AO R
ore$         AO R
oar          AO R
ire$         AY ER
ure$         Y UH R
war          W AO R
wor          W ER
arr          AE R
orr          AA R
urr          ER
irr          IH R
ar(?=[aeiou]) AE R
ar$          ER
ard$         ER D
ar           AA R
or           AO R
err          EH R
er           ER
ir           ER
ur           ER
yr           ER
ai           EY
ay           EY
au           AO
aw           AO
ae           IY
aa           AA
eau          OW
ea           IY
ee           IY
eu           UW
ew           UW
ey$          IY
ey           EY
ei           AY
ie$          IY
ies$         IY Z
ie           IY
ia           IY AH
io           IY OW
oa           OW
oe           OW
oi           OY
oy           OY
oo           UW
ou           AW
ow$          OW
ow           AW
ue$          UW
ui           UW
uo           W OW
ua           W AH
a{_MAGIC}    EY
e{_MAGIC}    IY
i{_MAGIC}    AY
o{_MAGIC}    OW
u{_MAGIC}    UW
y{_MAGIC}    AY
a$           AH
as$          AH Z
^ex(?=[aeiou]) IH G Z
^be(?=[^aeiou][aeiou]) B IH
^de(?=[^aeiou][aeiou]) D IH
^re(?=[^aeiou][aeiou]) R IY
^me$         M IY
(?<=[aeiouy][^aeiouy])e$
(?<=[^aeiouy])e$
e$           IY
^u(?=n)      AH
u(?=[^aeiou][aeiou]) UW
u$           UW
u            AH
a            AE
e            EH
i$           IY
i(?=[aeou])  IY
i            IH
o$           OW
os$          OW Z
o(?=[^aeiou][aeiou]) OW
o            AA
^y           Y
y$           IY
y(?=[aeiou]) Y
y            IH
"""
_CONSONANTS = f"""
([bdfgklmnprstvz])\\1
c{_FRONT}    S
c            K
g{_FRONT}    JH
(?<=[aeiou])s(?=[aeiou]) Z
(?<=[bdglmnrvaeiouyw])s$ Z
x            K S
j            JH
(?<=[aeiou])h(?![aeiou])
h            HH
q            K
w(?![aeiouy])
[bdfgklmnprstvwz]
"""


def _compile() -> list[tuple[re.Pattern[str], list[str] | None]]:
    """Patterns with their phones; None where the consonant names its own phone (last table)."""
    rules: list[tuple[re.Pattern[str], list[str] | None]] = []
    for line in filter(None, (_ENDINGS + _GROUPS + _VOWELS + _CONSONANTS).splitlines()):
        pattern, *phones = line.split()
        rules.append((re.compile(pattern), None if pattern.endswith(("\\1", "wz]")) else phones))
    return rules


_RULES = _compile()


@lru_cache(65536)
def sound_out(word: str) -> tuple[str, ...]:
    """Phones of a word by rule; words without vowels are spelled letter by letter.

    Args:
        word: letters a to z; all else is passed over (the caller removes accents).

    Example: "marsh" -> M AA R SH; "bbc" -> B IY B IY S IY
    """
    letters = "".join(letter for letter in word.casefold() if letter in LETTER_NAMES)
    if not re.search("[aeiouy]", letters):
        return tuple(" ".join(LETTER_NAMES[letter] for letter in letters).split())
    phones: list[str] = []
    at = 0
    while at < len(letters):
        found, sounds = next((m, p) for rule, p in _RULES if (m := rule.match(letters, at)) and m.end() > at)
        phones += [letters[at].upper()] if sounds is None else sounds
        at = found.end()
    return tuple(phones)
