"""Catches words without a pronunciation, wrong endings, labels without a phone, and guesses that are not named."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from speechscale.align.phones import ARPABET, IPA, from_espeak
from speechscale.align.pronounce import Pronouncer, plain_letters, read_dictionary
from speechscale.align.sounding import sound_out
from speechscale.errors import DataError
from speechscale.voices.espeak import VOICES, phone_inventory
from speechscale.voices.espeak_process import engine_paths

DICTIONARY = """\
;;; a comment
cat K AE1 T
dog D AO G
dog(2) D AA G
wish W IH SH
box B AA K S
flurry F L ER IY
play P L EY
hearth HH AA R TH
rug R AH G
make M EY K
happy HH AE P IY
dickens D IH K AH N Z
"""


@pytest.fixture
def small(tmp_path: Path) -> Pronouncer:
    path = tmp_path / "small.dict"
    path.write_text(DICTIONARY)
    return Pronouncer(path, guess="letters")


def test_variants_and_stress(small: Pronouncer) -> None:
    """A lost variant or a stress digit would make pocketsphinx refuse the word or miss the reading."""
    said = small(["cat", "dog"])
    assert said["cat"].variants == ("K AE T",)
    assert said["dog"].variants == ("D AO G", "D AA G")
    assert not said["dog"].guessed


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("cats", "K AE T S"),
        ("cat's", "K AE T S"),
        ("rug's", "R AH G Z"),
        ("wishes", "W IH SH IH Z"),
        ("boxes", "B AA K S IH Z"),
        ("flurries", "F L ER IY Z"),
        ("flurried", "F L ER IY D"),
        ("wished", "W IH SH T"),
        ("played", "P L EY D"),
        ("making", "M EY K IH NG"),
        ("unhappy", "AH N HH AE P IY"),
        ("happiness", "HH AE P IY N AH S"),
        ("hearthrug", "HH AA R TH R AH G"),
        ("dickens'", "D IH K AH N Z"),
        ("'cat", "K AE T"),
    ],
)
def test_endings_and_compounds(small: Pronouncer, word: str, phones: str) -> None:
    """The voice of an ending, or a wrong cut of a compound, moves word borders."""
    said = small([word])[word]
    assert phones in said.variants
    assert said.source == "rule"


def test_guesses_are_named(small: Pronouncer) -> None:
    """A guess that passes for knowledge hides the cause of a bad alignment."""
    said = small(["zyxomma", "cat"])
    assert said["zyxomma"].source == "letters"
    assert said["zyxomma"].guessed
    assert set(" ".join(said["zyxomma"].variants).split()) <= set(ARPABET)


@given(st.text(min_size=1, max_size=20))
def test_every_text_has_a_sound(word: str) -> None:
    """A word without phones would lose its utterance; a phone the model lacks would crash the decoder."""
    phones = sound_out(plain_letters(word))
    assert set(phones) <= set(ARPABET)
    if set(plain_letters(word)) & set("abcdfgijklmnopqrstuvxyz"):  # e, h and w may be silent
        assert phones


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("marsh", "M AA R SH"),
        ("bbc", "B IY B IY S IY"),
        ("knight", "N AY T"),
        ("nation", "N EY SH AH N"),
        ("cake", "K EY K"),
        ("phone", "F OW N"),
    ],
)
def test_rules_of_spelling(word: str, phones: str) -> None:
    """One word per kind of rule: groups, names of letters, silent letters, endings, silent e."""
    assert " ".join(sound_out(word)) == phones


@pytest.mark.parametrize(
    ("line", "message"),
    [("cat K QQ T", "'QQ'"), ("cat", "no phones")],
)
def test_a_bad_dictionary_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """pocketsphinx itself leaves such lines out silently."""
    path = tmp_path / "bad.dict"
    path.write_text(f"dog D AO G\n{line}\n")
    with pytest.raises(DataError, match=f"line 2.*{message}"):
        read_dictionary(path)


def test_unknown_settings_and_files(tmp_path: Path) -> None:
    """A typing error must not fall back to something else."""
    with pytest.raises(DataError, match="no such file"):
        Pronouncer(tmp_path / "none.dict", guess="letters")
    with pytest.raises(DataError, match="allowed are auto"):
        Pronouncer(tmp_path / "none.dict", guess="luck")


@pytest.mark.slow
def test_every_label_of_the_engine_has_a_phone() -> None:
    """A label that maps to nothing would drop a sound from every word that has it."""
    pytest.importorskip("espeakng_loader")
    silent = {label for label in phone_inventory(list(VOICES)) if not from_espeak([label])}
    assert silent == {"_", ";"}


def test_the_engine_guesses_in_arpabet(tmp_path: Path) -> None:
    """The voice engine's spelling goes through the table; an r is not said twice."""
    pytest.importorskip("espeakng_loader")
    engine_paths()
    path = tmp_path / "small.dict"
    path.write_text(DICTIONARY)
    pronouncer = Pronouncer(path, guess="auto")
    try:
        said = pronouncer(["hello", "mercury", "harry"])
    finally:
        pronouncer.close()
    assert {word: entry.source for word, entry in said.items()} == dict.fromkeys(said, "espeak")
    assert said["hello"].variants == ("HH AH L OW",)
    assert " R R " not in f" {said['mercury'].variants[0]} "


def test_ipa_covers_arpabet() -> None:
    """A phone without IPA spelling would raise in the middle of a corpus."""
    assert set(IPA) == set(ARPABET)
