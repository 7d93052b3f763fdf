"""A text tokenizer without the units inside it: what is left of a tokenizer.json when some ids are taken out.

Enters: the content of a tokenizer.json and a new id for each row that stays. Leaves: the content with these tokens
alone, under their new ids. The one decision worth knowing: rows without a token (padding of the model's table) get a
placeholder that no text contains, so that every row that stays has a name and none is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speechscale.errors import DataError
from speechscale.tokens.text_tokenizer import added_token, declared_ids


def keep_tokens(data: dict[str, Any], kept: Mapping[int, int]) -> dict[str, Any]:
    """Take the tokens out that have no new id, and give the others theirs.

    Args:
        data: of a tokenizer.json whose ids have no holes. kept: old id -> new id, in the same order.

    Raises:
        DataError: text is cut with the help of a token that goes, or a rule names one.
    """
    ids = declared_ids(data)
    new_ids = {token: kept[index] for token, index in ids.items() if index in kept}
    bare = {kept[index]: _placeholder(index) for index in kept.keys() - set(ids.values())}
    gone = ids.keys() - new_ids.keys()
    added = [
        {**token, "id": new_ids[token["content"]]} for token in data["added_tokens"] if token["content"] in new_ids
    ]
    added += [added_token(index, name) for index, name in bare.items()]
    return {
        **data,
        "model": _model(data["model"], new_ids, gone),
        "added_tokens": sorted(added, key=lambda token: int(token["id"])),
        "post_processor": _rule(data.get("post_processor"), new_ids),
        "truncation": None,
        "padding": None,
    }


def _placeholder(row: int) -> str:
    return f"<|row {row}|>"


def _model(model: dict[str, Any], new_ids: Mapping[str, int], gone: set[str]) -> dict[str, Any]:
    merged = [pair if isinstance(pair, list) else pair.split(" ") for pair in model.get("merges") or []]
    used = [pair for pair in merged if gone & set(pair)]
    if used:
        raise DataError(f"'{''.join(used[0])}' of the text is made of a unit or marker, which cannot be taken out then")
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        changed = {**model, "vocab": {token: new_ids[token] for token in vocab if token not in gone}}
        if merged:
            # A merge into a unit goes: typed text never becomes one, and units are found before text is cut.
            changed["merges"] = [pair for pair in merged if "".join(pair) not in gone]
        return changed
    changed = {**model, "vocab": [entry for entry in vocab if entry[0] not in gone]}
    if model.get("unk_id") is not None:
        changed["unk_id"] = new_ids[vocab[model["unk_id"]][0]]
    return changed


def _rule(rule: Any, new_ids: Mapping[str, int]) -> Any:
    """A post-processor with the new ids of the tokens that it puts around a text."""
    if not isinstance(rule, dict):
        return rule
    try:
        if rule["type"] == "Sequence":
            return {**rule, "processors": [_rule(part, new_ids) for part in rule["processors"]]}
        if rule["type"] == "TemplateProcessing":
            special = {
                name: {**entry, "ids": [new_ids[token] for token in entry["tokens"]]}
                for name, entry in rule["special_tokens"].items()
            }
            return {**rule, "special_tokens": special}
        if rule["type"] in ("RobertaProcessing", "BertProcessing"):
            return rule | {side: [rule[side][0], new_ids[rule[side][0]]] for side in ("sep", "cls")}
    except KeyError as error:
        raise DataError(f"the tokenizer puts {error} around a text, a unit or marker; it cannot be taken out") from None
    return rule
