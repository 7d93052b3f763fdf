"""Which vocabulary a build uses: a new one of what the sources hold, or one that is there and does not contradict.

Enters: sources, and what the user asked for. Leaves: a `Vocabulary`, or an error that names both sides. The one
decision worth knowing: an option that was not given contradicts nothing; one that was given is never passed over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from speechscale.corpus.text_sources import TextSource
from speechscale.errors import DataError
from speechscale.speech.unit_files import unit_file_header
from speechscale.tokens.spelling import DEFAULT_SPELLING, SPELLINGS
from speechscale.tokens.subwords import Subwords
from speechscale.tokens.text_tokenizer import find_eos, load_text_tokenizer
from speechscale.tokens.unit_sources import UnitSource
from speechscale.tokens.vocabulary import EOS, UNK, Vocabulary, build_text_tokenizer

TRAINED_ON = 100_000
"""Texts that a text tokenizer is made from, at most."""
REASONS = 3
TRAINED = ("words", "bpe")
DEFAULT_TOKENIZER, DEFAULT_TEXT_SIZE = "words", 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyOptions:
    """What was asked for; "" and None: nothing, the default is fine.

    Args:
        tokenizer: words, bpe, or what `load_text_tokenizer` takes. text_size: ids of words or bpe, at most.
        subwords: their file, or its folder. eos: token that ends documents. spelling: see `Spelling.of`.
    """

    tokenizer: str = ""
    text_size: int | None = None
    subwords: Path | None = None
    eos: str = ""
    spelling: str = ""

    @property
    def loaded(self) -> str:
        """The tokenizer that is to be loaded; "" if it is to be made."""
        return "" if self.tokenizer in ("", *TRAINED) else self.tokenizer


def new_vocabulary(
    units: Sequence[UnitSource], texts: Sequence[TextSource], options: VocabularyOptions | None = None
) -> Vocabulary:
    """Ids of what the sources hold; words and bpe are made from the beginnings of the texts and of the transcripts.

    Only what the build will read is looked at: transcripts of other splits stay unknown.

    Raises:
        DataError: nothing to make it from, or options that do not go together.
    """
    options = options or VocabularyOptions()
    if not units and not texts:
        raise DataError("tokens build: no sources; give --units, --text, or both")
    options = replace(options, tokenizer=options.tokenizer or DEFAULT_TOKENIZER)
    _check_together(options)
    files = {source: source.open()[1] for source in units}
    headers = [unit_file_header(file) for found in files.values() for file in found]
    num_units = max((int(header["num_units"]) for header in headers), default=0)
    if options.subwords and not num_units:
        raise DataError(f"--subwords {options.subwords}: there are no units; give --units, or leave it out")
    pieces = _load_subwords(options.subwords) if options.subwords else None
    spelling = options.spelling or DEFAULT_SPELLING
    if not options.loaded:
        why: list[str] = []
        samples = [*_text_samples(texts, why), *islice(_transcripts(files), TRAINED_ON)]
        if texts and not samples:
            named, reasons = ", ".join(str(source.path) for source in texts), " | ".join(why) or "none in the split"
            raise DataError(f"texts {named}: no document to make a vocabulary from ({reasons})")
        if not samples:
            return Vocabulary.textless(num_units, spelling=spelling, subwords=pieces)
        size = DEFAULT_TEXT_SIZE if options.text_size is None else options.text_size
        made = build_text_tokenizer(samples, options.tokenizer, size)
        text_only = Vocabulary.text_only(made, spelling=spelling)
    else:
        text_only = Vocabulary.from_pretrained(options.loaded, 0, eos_token=options.eos or None, spelling=spelling)
    try:
        return text_only.with_units(num_units, pieces) if num_units else text_only
    except DataError as error:
        how = f"--spelling: {', '.join(SPELLINGS)}, or a format"
        raise DataError(str(error).replace("(spelling)", f"({how})")) from error


def check_options(
    vocabulary: Vocabulary, folder: Path, options: VocabularyOptions, anew: Callable[[], Vocabulary] | None = None
) -> None:
    """Look whether a vocabulary is what was asked for.

    Args:
        folder: where the vocabulary is, for messages.
        anew: makes the vocabulary that the options give with the sources of this call. Called only where the vocabulary
            itself does not say whether it fits: a larger text size gives the same if the texts have no more words.

    Raises:
        DataError: it is not; names the option and what the vocabulary has.
    """
    _check_together(options)
    kind = _made_as(vocabulary)
    holds = {"words": "words", "bpe": "bpe", "": "no text"}.get(kind, "a tokenizer that was loaded")
    doubtful = "" if vocabulary.has_text else "--tokenizer" if options.tokenizer in TRAINED else ""
    if options.loaded and vocabulary.text_fingerprint != _loaded_fingerprint(options):
        raise _contradiction(folder, "--tokenizer", options.tokenizer, holds)
    if options.tokenizer in TRAINED and vocabulary.has_text and options.tokenizer != kind:
        raise _contradiction(folder, "--tokenizer", options.tokenizer, holds)
    if options.text_size is not None and options.text_size != vocabulary.text_size:
        if kind not in ("", *TRAINED) or options.text_size < vocabulary.text_size:
            raise _contradiction(
                folder, "--text-size", f"{options.text_size:,}", f"{vocabulary.text_size:,} ids of text"
            )
        doubtful = "--text-size"
    if doubtful and (anew is None or anew().text_fingerprint != vocabulary.text_fingerprint):
        asked = f"{options.text_size:,}" if doubtful == "--text-size" else options.tokenizer
        raise _contradiction(folder, doubtful, asked, f"{vocabulary.text_size:,} ids of text ({holds})")
    if options.subwords:
        pieces = _load_subwords(options.subwords)
        if vocabulary.subwords is None or vocabulary.subwords.fingerprint != pieces.fingerprint:
            found = f"{vocabulary.subwords.size:,} others" if vocabulary.subwords else "none"
            raise _contradiction(folder, "--subwords", str(options.subwords), f"{found}")
    if options.eos and options.eos != vocabulary.spelled[vocabulary.eos_id]:
        raise _contradiction(folder, "--eos", options.eos, f"'{vocabulary.spelled[vocabulary.eos_id]}'")
    if options.spelling and options.spelling != vocabulary.spelling:
        raise _contradiction(folder, "--spelling", options.spelling, f"'{vocabulary.spelling}'")


def _check_together(options: VocabularyOptions) -> None:
    if options.loaded and options.text_size is not None:
        raise DataError(
            f"--text-size {options.text_size:,}: the tokenizer '{options.loaded}' has its own size; leave it out"
        )
    if options.eos and options.tokenizer in TRAINED and options.eos != EOS:
        raise DataError(f"--eos {options.eos}: documents of '{options.tokenizer}' end with {EOS}; leave it out")


def _contradiction(folder: Path, option: str, asked: str, found: str) -> DataError:
    return DataError(
        f"{option} {asked}: the vocabulary in {folder} has {found}; leave {option} out to use that vocabulary, or "
        "choose another output for a new one"
    )


def _made_as(vocabulary: Vocabulary) -> str:
    """ "words" or "bpe" as made here, "loaded", or "" for a textless vocabulary."""
    if not vocabulary.has_text:
        return ""
    data = json.loads(vocabulary.text_json)
    model, splitter = data["model"], (data.get("pre_tokenizer") or {}).get("type")
    first = [token for token in (EOS, UNK) if token in model["vocab"]] if isinstance(model["vocab"], dict) else []
    if model["type"] == "WordLevel" and [model["vocab"][token] for token in first] == [0, 1]:
        return "words"
    if model["type"] == "BPE" and splitter == "ByteLevel" and first == [EOS] and model["vocab"][EOS] == 0:
        return "bpe"
    return "loaded"


def _loaded_fingerprint(options: VocabularyOptions) -> str:
    tokenizer = load_text_tokenizer(options.loaded)
    eos = options.eos or find_eos(tokenizer, options.loaded)
    return Vocabulary.text_only(tokenizer, eos_token=eos).text_fingerprint


def _load_subwords(path: Path) -> Subwords:
    return Subwords.load(path / "subwords.json" if path.is_dir() else path)


def _text_samples(texts: Sequence[TextSource], why: list[str]) -> Iterator[str]:
    """The beginnings of all texts; the first reasons for what is left out go into `why`."""

    def skip(id: str, reason: str, remedy: str) -> None:
        if len(why) < REASONS:
            why.append(f"{id}: {reason}; {remedy}")

    each = max(TRAINED_ON // max(len(texts), 1), 1)
    for source in texts:
        yield from (text for _, text in islice(source.documents(skip), each))


def _transcripts(files: dict[UnitSource, tuple[Path, ...]]) -> Iterator[str]:
    for source, found in files.items():
        for table, _ in source.tables(found):
            yield from (text for text in table.texts if text.strip())
