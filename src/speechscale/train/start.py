"""The model that a job starts with: from nothing, from a TextLM, or an SLM to go on with.

Enters: [model] of a job, the vocabulary. Leaves: a model with a row for every id, frozen or wrapped as asked.
The one decision worth knowing: everything about it follows from files and seeds, so a resumed run makes the same model
again and only then takes the weights of its checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechscale.errors import DataError
from speechscale.model.configs import size_of
from speechscale.model.folders import load_model, load_text_lm, text_lm_config
from speechscale.model.shape import Size
from speechscale.model.slm import drop_text, extend, new_model
from speechscale.speech.units import SpeechTokenizer
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.adapt import Adaptation, adapt
from speechscale.train.job import Model


def shape_of(model: Model) -> Size:
    """The shape of a model on disk or on the hub, from its config alone."""
    return size_of(text_lm_config(model.path, model.revision or None))


def make_model(wanted: Model, vocabulary: Vocabulary, size: Size, context: int, adaptation: Adaptation) -> Any:
    """The model before its first step, with a row for every id of the vocabulary.

    Raises:
        DataError: weights that do not fit, or an SLM of another vocabulary.
    """
    if wanted.start == "scratch":
        model = new_model(size, vocabulary.size, context, wanted.seed)
    elif wanted.start == "slm":
        model = load_slm(Path(wanted.path), vocabulary)
    else:
        text_lm = load_text_lm(wanted.path, wanted.revision or None)
        if wanted.start == "textless-warm":
            model = drop_text(text_lm, vocabulary.size, wanted.seed)
        else:
            model = _with_units(text_lm, wanted, vocabulary)
    return adapt(model, adaptation, wanted.seed)


def _with_units(text_lm: Any, wanted: Model, vocabulary: Vocabulary) -> Any:
    """Add the rows of units and markers to a TextLM, as the job says."""
    centroids = None
    if wanted.unit_tokenizer:
        tokenizer = SpeechTokenizer.load(wanted.unit_tokenizer)
        if tokenizer.num_units != vocabulary.num_units or not len(tokenizer.centroids):
            raise DataError(
                f"model.unit_tokenizer {wanted.unit_tokenizer}: {len(tokenizer.centroids)} centroids, the vocabulary "
                f"has {vocabulary.num_units} units; give the tokenizer that made them"
            )
        centroids = tokenizer.centroids
    copies = {}
    for marker, token in wanted.markers_like.items():
        to = vocabulary.SPEECH if marker == "speech" else vocabulary.TEXT
        source = vocabulary.text_tokenizer.token_to_id(token)
        if to is None or source is None:
            raise DataError(f"model.markers_like.{marker}: no token '{token}' in the text vocabulary; name one it has")
        copies[to] = source
    return extend(
        text_lm,
        vocabulary.text_size,
        vocabulary.size,
        wanted.seed,
        wanted.new_rows,
        centroids=centroids,
        copies=copies,
    )


def load_slm(folder: Path, vocabulary: Vocabulary) -> Any:
    """Read an SLM and hold it to a vocabulary.

    Raises:
        DataError: its own vocabulary is another one.
    """
    own = Vocabulary.load(folder)
    if own.fingerprint != vocabulary.fingerprint:
        raise DataError(
            f"{folder}: its vocabulary {own.fingerprint[:12]} ({own.size} ids) is not the data's "
            f"{vocabulary.fingerprint[:12]} ({vocabulary.size} ids); build the tokens with the model's vocabulary"
        )
    return load_model(folder)
