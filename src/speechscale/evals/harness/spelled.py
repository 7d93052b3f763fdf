"""Candidates as strings that a stock tokenizer reads as exactly their ids.

Enters: `Candidate`s, their vocabulary, a transformers tokenizer of it. Leaves: `Spelled` (context, continuation), or
the reason why there is no such string. The one decision worth knowing: nothing is trusted. Every string is tokenized as
lm-evaluation-harness does it (`_encode_pair` of 0.4.13) and compared with the candidate's ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from speechscale.evals.layouts import Candidate
from speechscale.evals.protocols import Span
from speechscale.files import complete_file, write_json
from speechscale.tokens.text_tokenizer import TOKENIZER_FILE
from speechscale.tokens.vocabulary import Vocabulary

CONFIG_FILE = "tokenizer_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelled:
    """A candidate as lm-eval reads it.

    Args:
        context: what is read only; starts with the document's first token, so it is never empty.
        continuation: what is scored. tokens: how many tokens that is.
    """

    context: str
    continuation: str
    tokens: int


def save_tokenizer(vocabulary: Vocabulary, folder: Path) -> None:
    """Write a tokenizer folder that transformers' AutoTokenizer reads with our ids, whatever the model is.

    Beside a model's config.json AutoTokenizer may choose a class of that family with rules of its own (Qwen2Tokenizer
    drops the words of a word-level vocabulary and adds a token), so the folder holds no config.json. Nothing is put in
    front of a text (no post-processor); first and last token are both our `<eos>`.
    """
    data = json.loads(vocabulary.tokenizer_json) | {"post_processor": None}
    with complete_file(folder / TOKENIZER_FILE) as draft:
        draft.write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    eos = vocabulary.spelled[vocabulary.eos_id]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": eos, "eos_token": eos}
    write_json(folder / CONFIG_FILE, config | {"clean_up_tokenization_spaces": False})


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer as lm-eval loads it."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def spell(
    candidate: Candidate, vocabulary: Vocabulary, tokenizer: Any, *, span: Span, end: bool = False
) -> Spelled | str:
    """Spell one candidate, or say why that is not possible.

    Args:
        tokenizer: from `load_tokenizer`. span: what is scored (see `Protocol`). end: whether `<eos>` is, behind it.
    """
    ids = [int(index) for index in candidate.ids] + [vocabulary.eos_id] * end
    first = candidate.prompt_tokens if span == "ending" else 1
    for text in _spellings(candidate, ids, vocabulary):
        encoded = tokenizer(text, return_offsets_mapping=True)
        if encoded["input_ids"] != ids:
            continue
        border = encoded["offset_mapping"][first][0]
        context, continuation = text[:border], text[border:]
        if encode_pair(tokenizer, context, continuation) == (ids[:first], ids[first:]):
            return Spelled(context=context, continuation=continuation, tokens=len(ids) - first)
    return f"{candidate.name}: no text gives its token ids in a stock tokenizer"


def encode_pair(tokenizer: Any, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of context and continuation as lm-eval makes them: blanks move to the continuation, both are read at once."""
    blanks = len(context) - len(context.rstrip())
    if blanks:
        context, continuation = context[:-blanks], context[-blanks:] + continuation
    if not context:
        return [], []
    whole, opening = tokenizer.encode(context + continuation), tokenizer.encode(context)
    return list(opening), list(whole[len(opening) :])


def _spellings(candidate: Candidate, ids: Sequence[int], vocabulary: Vocabulary) -> Iterator[str]:
    """Strings that may give these ids, likeliest first: text as the item has it, with and without a blank in front."""
    texts = _texts(candidate)
    shape = _shape(candidate, ids, vocabulary)
    if shape.count("") != len(texts):
        return
    for variant in product(*[_variants(text) for text in texts]):
        pieces = iter(variant)
        yield "".join(part or next(pieces) for part in shape)


def _texts(candidate: Candidate) -> list[str]:
    """The texts among a candidate's tokens, in order."""
    item, inside = candidate.item, candidate.layout.markers == "always"
    ending = str(getattr(item, candidate.side))
    if candidate.direction == "ss":
        return []
    if candidate.direction == "st":
        return [f" {' '.join(ending.split())}"]
    if candidate.direction == "ts":
        return [f" {' '.join(item.prompt.split())}"]
    if inside:
        return [f" {' '.join((item.prompt + ' ' + ending).split())}"]
    return [f"{item.prompt} {ending}" if item.prompt.strip() else ending]


def _variants(text: str) -> list[str]:
    return [text, text[1:]] if text.startswith(" ") else [text, f" {text}"]


def _shape(candidate: Candidate, ids: Sequence[int], vocabulary: Vocabulary) -> list[str]:
    """Spellings of units, markers and `<eos>`; "" where a run of text stands."""
    shape: list[str] = []
    in_text = False
    for index in ids:
        is_text = index < vocabulary.text_size and index != vocabulary.eos_id
        if not is_text:
            shape.append(vocabulary.spelled[index])
        elif not in_text:
            shape.append("")
        in_text = is_text
    return shape
