"""Checkpoints on the Hugging Face hub: fetched once, by name, and only files that cannot run code.

Enters: OWNER/NAME and perhaps a revision. Leaves: the folder of the snapshot and its commit. The one decision worth
knowing: only json, safetensors and files of tokenizers are asked for, at the top of the repository; pickled weights and
Python files never reach this machine. Without network the local cache serves.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from speechscale.errors import DataError
from speechscale.model.interop_weights import SAFE_WAY

WANTED = ("*.json", "*.safetensors", "*.model", "*.tiktoken", "merges.txt", "vocab.txt")
UNWANTED = ("*/*", "consolidated*.safetensors")
"""Folders below, and a second copy of the weights that some repositories have."""


class Snapshot(NamedTuple):
    """A folder of the hub's cache, and the commit it is."""

    folder: Path
    commit: str


def fetch(name: str, revision: str | None = None, *, parts: bool = False) -> Snapshot:
    """Bring a checkpoint of the hub here, or find it in the local cache.

    Args:
        name: OWNER/NAME. revision: branch, tag or commit; None is the default branch.
        parts: also json and safetensors in folders below: the speech tokenizer and vocoder of a bundle.

    Raises:
        DataError: it cannot be had; the message has the command that downloads it elsewhere.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repo_id=name,
                revision=revision,
                allow_patterns=list(WANTED),
                ignore_patterns=list(UNWANTED[1:] if parts else UNWANTED),
            )
        )
    except Exception as error:  # the hub's client raises errors of many kinds
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"checkpoint '{name}' is no folder here, and the hub did not give it ({reason}); check the name, or run "
            f"`{download_command(name, revision)}` on a machine with network and give that folder"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise DataError(
            f"checkpoint '{name}' (commit {folder.name}) has no safetensors at its top; if its weights are pickled: "
            f"{SAFE_WAY}"
        )
    return Snapshot(folder, folder.name)


def download_command(name: str, revision: str | None = None) -> str:
    """What to type on another machine. Example: hf download x/y --local-dir y --include "*.json" ..."""
    pinned = f" --revision {revision}" if revision else ""
    wanted = " ".join(
        [*(f'--include "{pattern}"' for pattern in WANTED), *(f'--exclude "{pattern}"' for pattern in UNWANTED)]
    )
    return f"hf download {name}{pinned} --local-dir {name.partition('/')[2]} {wanted}"
