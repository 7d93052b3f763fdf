"""The arrays in a speech tokenizer's folder, and their checksums.

Enters: paths and the checksums that speech_tokenizer.json names. Leaves: arrays. The one decision worth knowing: the
checksum is of names, types, shapes and numbers, not of the file, so that another safetensors version changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from speechscale.errors import DataError

REFIT = "make the tokenizer again"


def centroids_sha256(centroids: np.ndarray) -> str:
    """Hash of shape and contents."""
    content = np.ascontiguousarray(centroids, "<f4")
    return hashlib.sha256(repr(content.shape).encode() + content.tobytes()).hexdigest()


def tensors_sha256(tensors: Mapping[str, np.ndarray]) -> str:
    """Hash of names, types, shapes and contents, whatever the order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        content = np.ascontiguousarray(tensors[name])
        content = content.astype(content.dtype.newbyteorder("<"), copy=False)
        digest.update(repr((name, content.dtype.str, content.shape)).encode() + content.tobytes())
    return digest.hexdigest()


def read_centroids(path: Path, expected_sha256: str) -> np.ndarray:
    """Read kmeans.safetensors.

    Raises:
        DataError: missing, unreadable or other centroids.
    """
    arrays = _read_arrays(path)
    if "centroids" not in arrays:
        raise DataError(f"speech tokenizer {path}: not readable (it has no array 'centroids'); {REFIT}")
    if centroids_sha256(arrays["centroids"]) != expected_sha256:
        raise DataError(
            f"speech tokenizer {path}: the centroids are not those that speech_tokenizer.json names; {REFIT}"
        )
    return arrays["centroids"]


def read_encoder_tensors(path: Path, expected_sha256: str) -> dict[str, np.ndarray]:
    """Read encoder.safetensors.

    Raises:
        DataError: missing, unreadable or other arrays.
    """
    arrays = _read_arrays(path)
    if tensors_sha256(arrays) != expected_sha256:
        raise DataError(f"speech tokenizer {path}: the arrays are not those that speech_tokenizer.json names; {REFIT}")
    return arrays


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise DataError(f"speech tokenizer {path}: the file is missing; {REFIT}") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"speech tokenizer {path}: not readable ({error}); {REFIT}") from error
