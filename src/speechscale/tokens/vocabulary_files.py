"""A vocabulary on disk: tokenizer.json, subwords.json where there are subwords, and their lock vocabulary.json.

Enters: a `Vocabulary` or its folder. Leaves: the other. The one decision worth knowing: the lock is written last and
names everything that defines an id, so a folder that loads means what it meant when it was saved; the tokenizer.json is
plain, and stock transformers gives the same ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tokenizers import Tokenizer, models

from speechscale.errors import DataError
from speechscale.files import complete_file
from speechscale.tokens.spelling import DEFAULT_SPELLING
from speechscale.tokens.subwords import Subwords
from speechscale.tokens.text_tokenizer import EOS, TOKENIZER_FILE, UNK, added_token

if TYPE_CHECKING:
    from speechscale.tokens.vocabulary import Vocabulary

    V = TypeVar("V", bound=Vocabulary)

LOCK_FILE = "vocabulary.json"
USUAL_FOLDERS = ("vocabulary", "joint", "textless")
"""What the folder beside a store is called by `tokens build` and by studies."""
SUBWORDS_FILE = "subwords.json"
LOCK_FORMAT = "speechscale.vocabulary.2"
OLD_FORMAT = "speechscale.vocabulary.1"
NEW_FIELDS = ("num_speech", "subwords", "spelling")
"""What a lock of the old format does not have."""


def tokenizer_json(vocabulary: Vocabulary) -> str:
    """tokenizer.json with units, subwords and markers appended in the frozen order."""
    if vocabulary.has_text:
        data = json.loads(vocabulary.text_json)
    else:
        data = json.loads(Tokenizer(models.WordLevel({EOS: 0}, unk_token=UNK)).to_str())
    added = _added_tokens(vocabulary)
    data["added_tokens"] += added
    text = canonical(data)
    loaded = Tokenizer.from_str(text)
    moved = [token for token in added if loaded.token_to_id(token["content"]) != token["id"]]
    assert not moved, f"the tokenizer library renumbered {moved[:3]}"
    return text


def _added_tokens(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    names = vocabulary.names if vocabulary.has_text else [EOS, *vocabulary.names]
    first = vocabulary.size - len(names)
    return [added_token(first + index, name) for index, name in enumerate(names)]


def _lock(vocabulary: Vocabulary) -> dict[str, Any]:
    return {
        "format": LOCK_FORMAT,
        "has_text": vocabulary.has_text,
        "text_size": vocabulary.text_size,
        "unit_start": vocabulary.unit_start,
        "num_units": vocabulary.num_units,
        "num_speech": vocabulary.num_speech,
        "subwords": vocabulary.subwords and vocabulary.subwords.fingerprint,
        "spelling": vocabulary.spelling,
        "speech_marker": vocabulary.SPEECH,
        "text_marker": vocabulary.TEXT,
        "eos_id": vocabulary.eos_id,
        "unk_id": vocabulary.unk_id,
        "size": vocabulary.size,
        "fingerprint": vocabulary.fingerprint,
    }


def save(vocabulary: Vocabulary, folder: Path) -> None:
    """See `Vocabulary.save`."""
    lock = _lock(vocabulary) | {"tokenizer_sha256": _sha256(vocabulary.tokenizer_json.encode())}
    with complete_file(folder / TOKENIZER_FILE) as draft:
        draft.write_text(vocabulary.tokenizer_json, encoding="utf-8")
    if vocabulary.subwords is None:
        (folder / SUBWORDS_FILE).unlink(missing_ok=True)
    else:
        vocabulary.subwords.save(folder / SUBWORDS_FILE)
    with complete_file(folder / LOCK_FILE) as draft:
        draft.write_text(json.dumps(lock, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, kind: type[V]) -> V:
    """See `Vocabulary.load`."""
    lock_path, tokenizer_path = folder / LOCK_FILE, folder / TOKENIZER_FILE
    for path in (lock_path, tokenizer_path):
        if not path.is_file():
            raise DataError(f"{path}: missing; a vocabulary is {LOCK_FILE} and {TOKENIZER_FILE} side by side")
    try:
        lock = json.loads(lock_path.read_text(encoding="utf-8"))
        if lock["format"] not in (LOCK_FORMAT, OLD_FORMAT):
            raise DataError(f"{lock_path}: format '{lock['format']}', this version reads '{LOCK_FORMAT}'")
        content = tokenizer_path.read_bytes()
        if _sha256(content) != lock["tokenizer_sha256"]:
            raise DataError(f"{tokenizer_path}: differs from its lock {LOCK_FILE}; restore it or save it anew")
        data = json.loads(content)
        first = lock["text_size"] if lock["has_text"] else 0
        added = [token for token in data["added_tokens"] if token["id"] >= first]
        data["added_tokens"] = [token for token in data["added_tokens"] if token["id"] < first]
        vocabulary = kind(
            text_json=canonical(data) if lock["has_text"] else "",
            spelling=lock.get("spelling", DEFAULT_SPELLING),
            subwords=_subwords(folder / SUBWORDS_FILE, lock.get("subwords")),
            **{name: lock[name] for name in ("text_size", "num_units", "eos_id", "unk_id")},
        )
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{lock_path}: not a vocabulary lock: {error!r}; save the vocabulary anew") from error
    expected = _lock(vocabulary) | {"format": lock["format"]}
    if lock["format"] == OLD_FORMAT:
        expected = {key: value for key, value in expected.items() if key not in NEW_FIELDS}
    wrong = [f"{key}: {value!r} -> {lock.get(key)!r}" for key, value in expected.items() if lock.get(key) != value]
    if added != _added_tokens(vocabulary):
        wrong.append(f"{len(added)} tokens behind the text, not the {len(vocabulary.names)} that the lock says")
    if wrong:
        raise DataError(f"{lock_path}: does not fit {TOKENIZER_FILE} ({'; '.join(wrong)}); save it anew")
    vocabulary.__dict__["tokenizer_json"] = content.decode()  # as it was saved; making it anew takes long
    return vocabulary


def _subwords(path: Path, fingerprint: str | None) -> Subwords | None:
    if fingerprint is None:
        return None
    subwords = Subwords.load(path)
    if subwords.fingerprint != fingerprint:
        raise DataError(f"{path}: differs from its lock {LOCK_FILE}; restore it or save the vocabulary anew")
    return subwords


def canonical(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def places_beside(folder: Path) -> list[Path]:
    """Where the vocabulary of a token store or of packed rows usually is."""
    return [folder.parent / name for name in USUAL_FOLDERS]


def first_vocabulary(places: Iterable[Path]) -> Path | None:
    """The first of some folders that holds a vocabulary; None: none does."""
    return next((path for path in places if (path / LOCK_FILE).is_file()), None)
