"""Text tokenizers: train a small one, or load any Hugging Face tokenizer.json.

Enters: texts or a path. Leaves: a `tokenizers.Tokenizer`.
The one decision worth knowing: in those made here id 0 is `<eos>`, so that a textless model and a text model end their
documents with the same id.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from speechscale.errors import DataError

EOS = "<eos>"
UNK = "<unk>"
TOKENIZER_FILE = "tokenizer.json"
WORD_PATTERN = "\\w+(?:['\u2019]\\w+)*|[^\\w\\s]"


def build_text_tokenizer(
    texts: Iterable[str], kind: Literal["words", "bpe"] | str = "words", size: int = 2000
) -> Tokenizer:
    """Train a text tokenizer whose id 0 is `<eos>`.

    Args:
        kind: "words" (lower-cased words, punctuation split off, id 1 is `<unk>`), "bpe" (byte-level BPE, never
            unknown), or the path of a Hugging Face tokenizer.json, which is loaded as it is.
        size: largest number of ids, specials included; fewer if the texts have fewer.

    Raises:
        DataError: unknown kind, file that is no tokenizer, no text, size too small.
    """
    if kind not in ("words", "bpe"):
        return load_text_tokenizer(Path(kind))
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


def load_text_tokenizer(path: Path) -> Tokenizer:
    """Load a Hugging Face tokenizer.json (or the folder that holds one).

    Raises:
        DataError: no such file, or not a tokenizer.
    """
    path = path / TOKENIZER_FILE if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"text tokenizer '{path}': no such file; allowed: words, bpe, or a path to a tokenizer.json")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise DataError(f"text tokenizer '{path}': not a tokenizer.json: {error}") from error
