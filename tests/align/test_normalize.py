"""Catches text that is spoken wrongly, and times that come back to the wrong written word."""

from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from speechscale.align import numerals
from speechscale.align.normalize import Normalized, merge_times, normalize
from speechscale.align.numerals import roman
from speechscale.align.spelling import tokens_of
from speechscale.errors import DataError, MissingExtra
from speechscale.records import Word


def said(text: str, language: str = "en") -> str:
    return " ".join(normalize(text, language).spoken)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        # whole numbers, places, years
        (
            "7 42 100 1,234,567",
            "seven forty two one hundred one million two hundred thirty four thousand five hundred sixty seven",
        ),
        ("1st 2nd 3rd 3d 21st 100th 1,000th", "first second third third twenty first one hundredth one thousandth"),
        (
            "in 1455. 1906 2005 2015 1900",
            "in fourteen fifty five nineteen oh six two thousand five twenty fifteen nineteen hundred",
        ),
        (
            "2000 km, 1500 million, 1455%",
            "two thousand kilometers one thousand five hundred million one thousand four hundred fifty five percent",
        ),
        ("the 1990s, '80s and 1800s", "the nineteen nineties eighties and eighteen hundreds"),
        (
            "007 12345678901234567",
            "zero zero seven one two three four five six seven eight nine zero one two three four five six seven",
        ),
        # decimals, percent, signs
        ("3.14 .5 0.05 1.2.3", "three point one four point five zero point zero five one point two point three"),
        ("5% 2.5 % -5 +3 ~5", "five percent two point five percent minus five plus three about five"),
        # money
        (
            "$5, $1 $5.50 $0.50 $1.01",
            "five dollars one dollar five dollars and fifty cents fifty cents one dollar and one cent",
        ),
        (
            "$5 million; $2.5bn £1 5€ 50¢",
            "five million dollars two point five billion dollars one pound five euros fifty cents",
        ),
        ("$5-10 million $120,000,000", "five to ten million dollars one hundred twenty million dollars"),
        # times and dates
        ("3:45 3:05 3:00, 3:00 pm 5pm", "three forty five three oh five three o'clock three p m five p m"),
        ("12:30 a.m. 10:20:30", "twelve thirty a m ten twenty thirty"),
        (
            "May 5, 2020-12-25 12/25/2020",
            "may fifth december twenty fifth twenty twenty december twenty fifth twenty twenty",
        ),
        # fractions, ranges, groups, powers
        (
            "1/2 3/4 2/3 2 1/2 2½ 24/7",
            "one half three quarters two thirds two and one half two and one half twenty four seven",
        ),
        (
            "1914-1918 1914–18 pp. 3-5",
            "nineteen fourteen to nineteen eighteen nineteen fourteen to eighteen pages three to five",
        ),
        ("5-10% 3 - 5 5 - 3 = 2", "five to ten percent three to five five minus three equals two"),
        ("10:30-11:00 1900-01 20-20 9/11", "ten thirty to eleven nineteen hundred to oh one twenty twenty nine eleven"),
        ("$20-million £5.99/month", "twenty million dollars five pounds and ninety nine pence per month"),
        ("3.000.000 1:2", "three million one two"),
        ("555-1234 10⁶ x² 5'10\"", "five five five one two three four ten to the sixth x squared five feet ten inches"),
        ("2+2=4", "two plus two equals four"),
        # Roman numerals, only where clear
        ("Chapter IV, Part V. World War II", "chapter four part five world war two"),
        ("Henry VIII, Louis XIV's Henry V", "henry the eighth louis the fourteenth's henry the fifth"),
        ("George I think Part I think I mix CD", "george i think part i think i mix c d"),
        ("Act I, Chapter I begins World War I began", "act one chapter one begins world war one began"),
        # abbreviations
        ("Dr. and Mrs. Smith vs. Mr Jones, Esq.", "doctor and missus smith versus mister jones esquire"),
        ("12 Main St. near St. Paul's", "twelve main street near saint paul's"),
        ("No. 5 said no. No. Nos. 5", "number five said no no numbers five"),
        ("the mar. Mar. 5 &c. etc.", "the mar march fifth et cetera et cetera"),
        ("St Andrews; he said St", "saint andrews he said st"),
        ("e.g. this, i.e. that", "for example this that is that"),
        ("He ran to the co. and sat.", "he ran to the co and sat"),
        # symbols and units
        ("salt & pepper @ home # C++", "salt and pepper at home c plus plus"),
        (
            "5km 1 km 60 mph 20°C 6ft",
            "five kilometers one kilometer sixty miles per hour twenty degrees celsius six feet",
        ),
        ("joe@site.com www.a.org/b", "joe at site dot com w w w dot a dot org slash b"),
        # hyphens, dashes, quotes, accents
        ("wood-cutters and/or noise—it", "wood cutters and or noise it"),
        ("3-year-old F-16 MP3 COVID-19", "three year old f sixteen m p three covid nineteen"),
        ("“I don’t,” 'he' said: 'tis girls' fun…ny", "i don't he said 'tis girls fun ny"),
        ("Café naïve ﬁve Œuvre ＡＢ", "cafe naive five oeuvre ab"),
        # initialisms
        ("the FBI's TVs, AT&T, U.S.A. and J. R. R. Tolkien", "the f b i's t v's a t and t u s a and j r r tolkien"),
        ("NASA said NO! Shh, HMM BIG", "nasa said no shh hmm big"),
        ("THE MAN SAID IT WAS US AND AI", "the man said it was us and ai"),
        # other scripts and marks
        ("٣ ① ፩ note¹ <|endoftext|> 🙂", "three one one note"),
    ],
)
def test_english(text: str, spoken: str) -> None:
    assert said(text) == spoken


@pytest.mark.parametrize(
    ("text", "language", "spoken"),
    [
        ("2024 and 101", "en-GB", "twenty twenty four and one hundred and one"),
        ("05/12/1999", "en-GB", "december fifth nineteen ninety nine"),
        ("21,5 % für Äpfel & Öl", "de", "einundzwanzig komma fünf prozent für äpfel und öl"),
        ("1.234 Äpfel, 1789", "de", "eintausendzweihundertvierunddreißig äpfel siebzehnhundertneunundachtzig"),
        ("Il a 21 ans, l'été", "fr", "il a vingt et un ans l'été"),
        ("Привет, 5 раз", "ru", "привет пять раз"),
        ("हिन्दी में", "hi", "हिन्दी में"),
    ],
)
def test_other_languages_keep_accents_and_say_numbers(text: str, language: str, spoken: str) -> None:
    assert said(text, language) == spoken


def test_a_language_without_number_words_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"language 'xx': num2words cannot say 5; write numbers as words"):
        normalize("5", "xx")
    assert said("no digits", "xx") == "no digits"


def test_capitals_missing_from_the_dictionary_are_spelled() -> None:
    known = {"nasa", "stop", "the", "said", "to"}
    assert normalize("the NASA said STOP to IUPAC", known=known).spoken[-6:] == ("to", *"iupac")


def test_without_num2words_only_digits_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    original = importlib.import_module

    def refuse(name: str, package: str | None = None) -> Any:
        if name == "num2words":
            raise ImportError(name)
        return original(name, package)

    for function in (numerals._library, numerals.cardinal, numerals.number, numerals._point):
        function.cache_clear()
    monkeypatch.setattr(importlib, "import_module", refuse)
    assert said("no digits & so on") == "no digits and so on"
    with pytest.raises(MissingExtra, match=r"num2words.*'align'"):
        normalize("5 apples")
    monkeypatch.undo()
    assert said("5 apples") == "five apples"


def test_roman_numerals_are_canonical() -> None:
    """Every number up to 3999 is read from its one spelling, and nothing else is."""

    def write(value: int) -> str:
        signs = ("M", "CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I")
        out = ""
        for sign, worth in zip(signs, [1000, 900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1], strict=True):
            out += sign * (value // worth)
            value %= worth
        return out

    assert all(roman(write(value)) == value for value in range(1, 4000))
    assert [roman(text) for text in ("", "IIX", "VV", "IIII", "iv", "MIXED", "IC")] == [None] * 7


def check(text: str, normalized: Normalized) -> None:
    """The invariants every text has to keep."""
    assert " ".join(normalized.raw) == " ".join(text.split())
    assert len(normalized.spoken) == len(normalized.raw_index)
    assert list(normalized.raw_index) == sorted(normalized.raw_index)
    if normalized.spoken:
        assert set(normalized.raw_index) == set(range(len(normalized.raw)))
    for word in normalized.spoken:
        assert word
        assert not re.search(r"\s|[-.,!?\"]", word)
        assert not any(character.isdigit() for character in word)
        assert word == word.lower()
        assert any(character.isalpha() for character in word)


MARKS = """
    Dr. St. $ £ % 1 2 5.5 12 1455 1,234 007 3:45 1/2 ½ ² - — -- 's ' " ( ) . , ; : & @ # + = / IV VIII Henry Chapter I
    th st pm km km/h FBI USA word Word can't é ﬁ … <a> ~ ^ * ٣ ፩ 五 º € million No. Jan. x a.m. https:// .com
"""
PIECES = st.sampled_from(MARKS.split())


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(PIECES, st.just(" ")), max_size=12).map("".join))
@example("9" * 400)
@example("1/0 0/0 99:99 0:00 13/13/2020 0000-00-00 1e400 $. $, -- 0s 00s #. '")
@example("1.1,1.1 1,1,1 ,5, .5. 5. $5.5.5 5--5 -5--5 $5-$10-$15 1-2-3-4")
def test_any_mixture_keeps_the_invariants(text: str) -> None:
    check(text, normalize(text))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.sampled_from(["en", "en-GB", "de", "fr"]))
def test_any_unicode_keeps_the_invariants(text: str, language: str) -> None:
    normalized = normalize(text, language)
    assert " ".join(normalized.raw) == " ".join(text.split())
    assert list(normalized.raw_index) == sorted(normalized.raw_index)
    assert not any(character.isdigit() for word in normalized.spoken for character in word)
    assert normalize(text, language) == normalized


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**15), st.sampled_from(["{}", "{:,}", "${}", "{}%", "-{}", "{}th", "{}.25", "#{}"]))
def test_every_number_is_said_without_digits(value: int, form: str) -> None:
    text = form.format(value)
    check(text, normalize(text))
    assert normalize(text).spoken


def test_agrees_with_the_reading_in_ljspeech(shared: Path) -> None:
    """LJSpeech's own normalized column is what its reader says; ours says the same words for both columns."""
    lines = (shared / "data/dev-ljspeech/metadata.csv").read_text(encoding="utf-8").splitlines()
    changed = 0
    for line in lines:
        _, raw, reference = line.split("|")
        assert normalize(raw).spoken == normalize(reference).spoken
        # Without numbers our words are just the words of the text.
        assert [token for word in normalize(reference).spoken for token in tokens_of(word)] == tokens_of(reference)
        changed += raw != reference
    assert len(lines) == 12
    assert changed == 1


def test_stories_and_speeches_keep_the_invariants(shared: Path) -> None:
    """Real text: nothing crashes, nothing is lost, and plain words stay what they are."""
    text = (shared / "data/dev-text/tinystories_part1.txt").read_text(encoding="utf-8")
    texts = text.split("<|endoftext|>")[:100]
    with zipfile.ZipFile(shared / "data/dev-text/inaugural.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".txt"))
        texts += [archive.read(name).decode("latin-1") for name in names[::8]]
    words = kept = 0
    for text in texts:
        normalized = normalize(text)
        check(text, normalized)
        for written, spoken in normalized:
            if re.fullmatch(r"[a-z]+[,.!?]?", written):
                words += 1
                kept += spoken == (written.strip(",.!?"),)
    assert words > 20_000
    assert kept == words


def times(normalized: Normalized, *without: int) -> list[Word]:
    return [
        Word(text=word)
        if index in without
        else Word(text=word, start_s=float(index), end_s=index + 1.0, score=1 - index / 100)
        for index, word in enumerate(normalized.spoken)
    ]


def test_times_come_back_to_the_written_words() -> None:
    normalized = normalize("In 1455 -- he paid $5 million")
    assert normalized.raw == ("In", "1455 --", "he", "paid", "$5", "million")
    assert normalized.raw_index == (0, 1, 1, 1, 2, 3, 4, 5, 5)
    merged = merge_times(normalized, times(normalized))
    assert [(word.text, word.start_s, word.end_s, word.score) for word in merged] == [
        ("In", 0.0, 1.0, 1.0),
        ("1455 --", 1.0, 4.0, 0.97),
        ("he", 4.0, 5.0, 0.96),
        ("paid", 5.0, 6.0, 0.95),
        ("$5", 6.0, 7.0, 0.94),
        ("million", 7.0, 9.0, 0.92),
    ]


def test_a_word_with_an_unknown_end_has_no_time() -> None:
    """A time of half of a written word would be a wrong time."""
    normalized = normalize("1455 it")
    assert [word.start_s for word in merge_times(normalized, times(normalized, 1))] == [0.0, 3.0]
    assert [word.start_s for word in merge_times(normalized, times(normalized, 2))] == [None, 3.0]
    assert merge_times(normalize(""), []) == ()
    assert merge_times(normalize("--"), []) == (Word(text="--"),)
    with pytest.raises(DataError, match="times for 1 words, but 4 are spoken"):
        merge_times(normalized, [Word(text="x")])
