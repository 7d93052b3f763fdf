"""Text tokenizers: train a small one, or load any Hugging Face tokenizer.

Enters: texts, a path or a name on the hub. Leaves: a `tokenizers.Tokenizer`.
The one decision worth knowing: ids stay what the files say, holes included; in those made here id 0 is `<eos>`, so that
a textless model and a text model end their documents with the same id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from speechscale.errors import DataError
from speechscale.files import read_json

EOS = "<eos>"
UNK = "<unk>"
TOKENIZER_FILE = "tokenizer.json"
END_NAMES = ("<eos>", "<|endoftext|>", "<|end_of_text|>", "</s>", "[EOS]", "<|im_end|>", "<|eot_id|>", "<end_of_turn>")
TOKENIZER_FILES = ("*.model", "*.tiktoken", "vocab.*", "merges.txt", "tokenizer_config.json")
"""Of which transformers makes a tokenizer where there is no tokenizer.json."""
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?<!\.json)")
"""OWNER/NAME; a name without owner would send every typing error to the network."""
_HOLE = "<|hole "
WORD_PATTERN = "\\w+(?:['\u2019]\\w+)*|[^\\w\\s]"


def build_text_tokenizer(
    texts: Iterable[str], kind: Literal["words", "bpe"] | str = "words", size: int = 2000
) -> Tokenizer:
    """Train a text tokenizer whose id 0 is `<eos>`.

    Args:
        kind: "words" (lower-cased words, punctuation split off, id 1 is `<unk>`), "bpe" (byte-level BPE, never
            unknown), or what `load_text_tokenizer` takes, which is loaded as it is.
        size: largest number of ids, specials included; fewer if the texts have fewer.

    Raises:
        DataError: unknown kind, file that is no tokenizer, no text, size too small.
    """
    if kind not in ("words", "bpe"):
        return load_text_tokenizer(kind)
    smallest = 3 if kind == "words" else 257 + 1
    if size < smallest:
        raise DataError(f"text tokenizer '{kind}': size {size} is too small; give at least {smallest}")
    if kind == "words":
        tokenizer = Tokenizer(models.WordLevel(unk_token=UNK))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True)
        trainer: Any = trainers.WordLevelTrainer(vocab_size=size, special_tokens=[EOS, UNK], show_progress=False)
        specials = 2
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
        )
        specials = 1 + len(alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    if kind == "words" and tokenizer.get_vocab_size() <= specials:
        raise DataError("text tokenizer 'words': the texts contain no word; give some text")
    return tokenizer


def load_text_tokenizer(path: Path | str, revision: str | None = None) -> Tokenizer:
    """Load a Hugging Face tokenizer: a tokenizer.json, a folder, or OWNER/NAME of a model on the hub.

    A folder without tokenizer.json and a name go through transformers, which runs no code of theirs. Ids stay what the
    files say: where they have holes, placeholders fill them.

    Args:
        revision: of a name on the hub; None is its default branch.

    Raises:
        DataError: no such file, not a tokenizer, no fast tokenizer, or ids that cannot be kept.
    """
    file = _tokenizer_file(Path(path))
    if file is None:
        automatic = _auto_tokenizer(str(path), revision)
        return tokenizer_from_json(automatic.backend_tokenizer.to_str(), str(path))
    try:
        return tokenizer_from_json(file.read_text(encoding="utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"text tokenizer '{file}': cannot be read: {error}") from error


def tokenizer_from_json(text: str, name: str) -> Tokenizer:
    """Make a tokenizer whose ids are those that the JSON declares.

    Raises:
        DataError: not a tokenizer, or ids that the tokenizers library would move.
    """
    try:
        data = json.loads(text)
        declared = declared_ids(data)
        filled = fill_holes(data)
        tokenizer = Tokenizer.from_str(text if filled is data else json.dumps(filled, ensure_ascii=False))
    except DataError as error:
        raise DataError(f"text tokenizer '{name}': {error}") from error
    except Exception as error:  # the Rust library raises bare Exception
        raise DataError(f"text tokenizer '{name}': not a tokenizer.json: {error!r}") from error
    found = tokenizer.get_vocab(with_added_tokens=True)
    moved = [token for token, index in declared.items() if found.get(token) != index]
    if moved:
        raise DataError(
            f"text tokenizer '{name}': token '{moved[0]}' has id {declared[moved[0]]} in the file and "
            f"{found.get(moved[0])} when loaded ({len(moved)} such); save it anew with transformers' save_pretrained"
        )
    return tokenizer


def declared_ids(data: dict[str, Any]) -> dict[str, int]:
    """Token -> id of model and added tokens, as a tokenizer.json says."""
    vocab = data["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {token: index for index, (token, _) in enumerate(vocab)}
    return ids | {token["content"]: token["id"] for token in data["added_tokens"]}


def fill_holes(data: dict[str, Any]) -> dict[str, Any]:
    """Name every id that a tokenizer.json leaves out; the tokenizers library would close the holes by moving tokens.

    Returns `data` itself where there is nothing to do. The placeholder of id 7 is `<|hole 7|>`; its blank keeps it from
    ever being found in a text.

    Raises:
        DataError: an added token lies inside a model whose vocabulary is a list (Unigram).
    """
    vocab = data["model"]["vocab"]
    known = set(vocab) if isinstance(vocab, dict) else {token for token, _ in vocab}
    added = sorted((t for t in data["added_tokens"] if t["content"] not in known), key=lambda token: token["id"])
    top = max(vocab.values(), default=-1) + 1 if isinstance(vocab, dict) else len(vocab)
    inside = {token["content"]: token["id"] for token in added if token["id"] < top}
    behind = [token for token in added if token["id"] >= top]
    if isinstance(vocab, dict):
        taken = {*vocab.values(), *inside.values()}
        inside |= {_hole(index): index for index in range(top) if index not in taken} if len(taken) < top else {}
    elif inside:
        token, index = next(iter(inside.items()))
        raise DataError(f"added token '{token}' has id {index}, which the model also uses; give it a free id")
    taken = {token["id"] for token in behind}
    holes = [index for index in range(top, max(taken, default=-1)) if index not in taken]
    if not inside and not holes:
        return data
    model = {**data["model"], "vocab": {**vocab, **inside} if isinstance(vocab, dict) else vocab}
    tokens = [*data["added_tokens"], *(added_token(index, _hole(index)) for index in holes)]
    return {**data, "model": model, "added_tokens": sorted(tokens, key=lambda token: token["id"])}


def added_token(index: int, name: str) -> dict[str, Any]:
    """A special token as tokenizer.json spells it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": name, **flags, "special": True}


def find_eos(tokenizer: Tokenizer, path: Path | str, revision: str | None = None) -> str:
    """The token that ends a document, from tokenizer_config.json, special_tokens_map.json or config.json.

    A tokenizer.json alone says it too if it has exactly one of the usual names.

    Raises:
        DataError: nothing says it, or the named token is not in the tokenizer; the message lists candidates.
    """
    file = _tokenizer_file(Path(path))
    eos = _auto_tokenizer(str(path), revision).eos_token if file is None else _configured_eos(tokenizer, file.parent)
    usual = [name for name in END_NAMES if tokenizer.token_to_id(name) is not None]
    if eos is None and len(usual) == 1:
        return usual[0]
    if eos is None or tokenizer.token_to_id(str(eos)) is None:
        special = [
            token.content
            for token in tokenizer.get_added_tokens_decoder().values()
            if token.special and not token.content.startswith(_HOLE)
        ]
        candidates = ", ".join(dict.fromkeys([*usual, *special[:20]])) or "none"
        said = "nothing beside it says" if eos is None else f"it does not hold '{eos}', which its files name as"
        raise DataError(
            f"text tokenizer '{path}': {said} what ends a document; name the token (--eos), e.g. of {candidates}"
        )
    return str(eos)


@lru_cache(maxsize=4)
def unknown_ids(vocabulary_json: str, unk_id: int | None) -> tuple[int, ...]:
    """Ids that a text tokenizer gives to what it cannot spell; none where it can spell everything.

    Args:
        vocabulary_json: the tokenizer.json of the text block, "" for a textless vocabulary. unk_id: of `<unk>`, if any.
    """
    found = {unk_id}
    if vocabulary_json:
        data = json.loads(vocabulary_json)
        found |= {data["model"].get("unk_id"), declared_ids(data).get(data["model"].get("unk_token") or "")}
    return tuple(sorted(index for index in found if index is not None))


def _configured_eos(tokenizer: Tokenizer, folder: Path) -> str | None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        entry = _settings(folder / name).get("eos_token")
        content = entry.get("content") if isinstance(entry, dict) else entry
        if isinstance(content, str):
            return content
    index = _settings(folder / "config.json").get("eos_token_id")
    index = index[0] if isinstance(index, list) and index else index
    return tokenizer.id_to_token(index) if isinstance(index, int) else None


def _settings(path: Path) -> dict[str, Any]:
    return read_json(path, "settings of a text tokenizer", "restore or remove the file") if path.is_file() else {}


def _hole(index: int) -> str:
    return f"{_HOLE}{index}|>"


def _tokenizer_file(path: Path) -> Path | None:
    """The tokenizer.json that a path means; None if transformers must find the tokenizer."""
    if path.is_dir():
        if (path / TOKENIZER_FILE).is_file():
            return path / TOKENIZER_FILE
        if not any(found for pattern in TOKENIZER_FILES for found in path.glob(pattern)):
            raise DataError(
                f"text tokenizer '{path}': the folder has no {TOKENIZER_FILE} and no other file of a tokenizer; give "
                "the folder of a model with its tokenizer, or of a vocabulary"
            )
        return None
    if not path.is_file() and not HUB_NAME.fullmatch(str(path)):
        raise DataError(
            f"text tokenizer '{path}': no such file; allowed: words, bpe, a path to a tokenizer.json or its folder, "
            "or OWNER/NAME on the hub"
        )
    return path if path.is_file() else None


def _auto_tokenizer(path: str, revision: str | None) -> Any:
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(
            path, revision=revision or "main", trust_remote_code=False, local_files_only=Path(path).exists()
        )
    except Exception as error:  # it raises OSError, ValueError, KeyError and errors of the hub
        raise DataError(f"text tokenizer '{path}': transformers cannot load it: {error}") from error
    if getattr(found, "backend_tokenizer", None) is None:
        raise DataError(f"text tokenizer '{path}': it has no fast version; give one that has a tokenizer.json")
    return found
