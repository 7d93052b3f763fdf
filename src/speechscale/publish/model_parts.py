"""What a model's own files say: its class, ids and units.

Enters: a `Located` model. Leaves: the parts of `ModelFacts` that no record is needed for. The one decision worth
knowing: weights are not loaded, their headers are read, so that the facts of a 7B model cost nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechscale.files import read_json
from speechscale.model.interop_stock import stock_config
from speechscale.model.interop_weights import open_weights
from speechscale.model.stock_settings import context_of
from speechscale.report.card_facts import IdFacts, UnitFacts
from speechscale.speech.tokenizer_files import centroids_sha256
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoders import open_vocoder
from speechscale.study.located import Located
from speechscale.tokens.spelling import Spelling
from speechscale.tokens.text_tokenizer import HUB_NAME, unknown_ids
from speechscale.tokens.vocabulary import Vocabulary

LEARNED_WITH_LABELS = "supervised"
OWN_ENCODERS = {
    "adapted": "adapted (of speechscale: learned from audio alone)",
    "phonetic-supervised": "phonetic-supervised (of speechscale)",
    "mfcc": "MFCC",
}
"""Encoders without a published model, for people."""


def beside(name: str, run: Path) -> Path:
    """A path as a record has it: from here, or, if it is not there, from the first folder above the run that has it.

    A job names what it read as its user did, perhaps from where it was started.
    """
    places = [Path(name), *(folder / name for folder in run.resolve().parents)]
    return next((place for place in places if place.exists()), places[0])


def hub_name(name: str, run: Path) -> str | None:
    """OWNER/NAME of a model on the hub; None for what is, or looks like, a folder of this machine."""
    return name if HUB_NAME.fullmatch(name) and not beside(name, run).exists() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Of a model. params_total: numbers in its files; a tied head is one table."""

    architecture: str
    family: str
    context: int | None
    params_total: int


def shape_of_model(folder: Path) -> Shape:
    """Class, context and parameters, from config.json and the headers of the weights. Raises DataError as both."""
    config = stock_config(read_json(folder / "config.json", "model config", "give a model folder"), str(folder))
    shapes = open_weights(folder).shapes
    return Shape(
        architecture=config.architectures[0],
        family=config.model_type,
        context=context_of(config),
        params_total=sum(math.prod(shape) for shape in shapes.values()),
    )


def id_facts(vocabulary: Vocabulary, texts: Sequence[str] = ()) -> IdFacts:
    """The blocks of the vocabulary and how they are spelled.

    Args:
        texts: that the model was trained on; the opening of one becomes the example of a prompt.
    """
    spelling = Spelling.of(vocabulary.spelling)
    start = vocabulary.unit_start
    example = [unit for unit in (12, 7, 30) if unit < vocabulary.num_units] or [0]
    return IdFacts(
        size=vocabulary.size,
        text=(0, vocabulary.text_size) if vocabulary.has_text else None,
        units=(start, start + vocabulary.num_units) if vocabulary.num_units else None,
        speech_marker=vocabulary.SPEECH,
        text_marker=vocabulary.TEXT,
        eos=vocabulary.eos_id,
        eos_name=vocabulary.spelled[vocabulary.eos_id],
        unit_example="".join(map(spelling.unit, example)),
        text_example=text_example(vocabulary, texts),
        markers=(spelling.speech, spelling.text),
        merged_subwords=vocabulary.num_speech - vocabulary.num_units,
    )


def text_example(vocabulary: Vocabulary, texts: Sequence[str] = ()) -> str:
    """A few words of which the tokenizer knows every one: an opening, or else its own most frequent words."""
    if not vocabulary.has_text:
        return ""
    openings = [" ".join(re.findall(r"[\w']+", text)[:4]) for text in texts]
    unknown = unknown_ids(vocabulary.text_json, vocabulary.unk_id)
    for words in ("once upon a time", *openings):
        (ids,) = vocabulary.encode_text([words]).rows()
        if words and not set(ids.tolist()) & set(unknown):
            return words
    names = map(vocabulary.text_tokenizer.id_to_token, range(vocabulary.text_size))
    return " ".join([name for name in names if name and name.isalpha()][:3])


def unit_facts(located: Located, vocabulary: Vocabulary, *, supervised: bool = False) -> UnitFacts:
    """What makes and speaks the units, as far as it lies beside the model.

    Raises:
        DataError: a speech tokenizer or vocoder that cannot be opened.
    """
    voices = None
    if located.vocoder is not None:
        voices = tuple(open_vocoder(located.vocoder).speakers)
    if located.speech_tokenizer is None:
        return UnitFacts(count=vocabulary.num_units, per_second=located.units_per_second, voices=voices)
    tokenizer = SpeechTokenizer.load(located.speech_tokenizer)
    settings = tokenizer.encoder_config
    name = str(settings.get("model") or OWN_ENCODERS.get(tokenizer.encoder_name, tokenizer.encoder_name))
    layer = settings.get("layer")
    return UnitFacts(
        count=vocabulary.num_units,
        encoder=name,
        revision=settings.get("revision") or None,
        layer=layer if isinstance(layer, int) else None,
        kmeans_sha256=centroids_sha256(tokenizer.centroids) if len(tokenizer.centroids) else None,
        frame_rate_hz=tokenizer.frame_rate_hz,
        per_second=located.units_per_second,
        oracle=tokenizer.oracle,
        supervised=supervised or bool(tokenizer.fit.get(LEARNED_WITH_LABELS)),
        tokenizer_included=True,
        voices=voices,
    )
