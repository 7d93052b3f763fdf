"""Centroids from other tools' files: scikit-learn, faiss, fairseq, torch, numpy, safetensors.

Enters: one file. Leaves: a `Quantizer` with float32 centroids and the file's hash, or a tokenizer made of it. The one
decision worth knowing: no format is trusted to run code; pickles are read by `inert_pickle`, and a quantizer is known
by the hash of its file, so two of them never share a name.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from speechscale.errors import DataError
from speechscale.speech.inert_pickle import REFUSE, Inert, read_inert
from speechscale.speech.units import SpeechTokenizer

MAX_BYTES = 2**31
"""Largest file, packed or unpacked; a codebook of 10,000 x 1,024 takes 40 MB, its training labels may come with it."""
TENSOR_NAMES = ("centroids", "cluster_centers_", "cluster_centers", "centers", "codebook")
FAISS_L2 = 1
FAISS_FLAT = {b"IxF2": "faiss IndexFlatL2", b"IxFl": "faiss IndexFlat"}
GET_AGAIN = "get the file again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """Centroids of another tool.

    Args:
        centroids: [clusters, dim] float32, row i is unit i.
        source_name, source_format, source_sha256: file name, what it was read as, hash of its bytes.
        source_dtype: type of the numbers in the file. rounding: largest change by going to float32.
    """

    centroids: Float[np.ndarray, "clusters dim"]
    source_name: str
    source_format: str
    source_sha256: str
    source_dtype: str
    rounding: float

    @property
    def clusters(self) -> int:
        return len(self.centroids)

    @property
    def dim(self) -> int:
        return int(self.centroids.shape[1])

    @property
    def cache_name(self) -> str:
        """A folder name no other quantizer has. Example: kmeans-500x768-03cc04a9c24fec42"""
        return f"kmeans-{self.clusters}x{self.dim}-{self.source_sha256[:16]}"

    @property
    def statement(self) -> str:
        """How the centroids came here, in one line."""
        change = "bit for bit" if self.rounding == 0 else f"rounded by at most {self.rounding:.2g}"
        return (
            f"{self.clusters} centroids of {self.dim} dimensions from {self.source_name} ({self.source_format}, sha256 "
            f"{self.source_sha256}), {self.source_dtype} to float32 {change}; row i is unit i"
        )


def read_quantizer(path: str | Path, *, sha256: str | None = None) -> Quantizer:
    """Read the centroids of a file; the format is told by its first bytes, never by its name.

    | format | first bytes |
    |---|---|
    | joblib or pickle of scikit-learn KMeans, MiniBatchKMeans (fairseq, textless `km*.bin`) | 80, or a text pickle |
    | the same compressed by zlib, gzip, bz2, xz, lzma | 78, 1f8b, "BZ", fd377a585a, 5d00 |
    | torch (.pt: a tensor, or a dict with one) | "PK" |
    | faiss IndexFlatL2 | "IxF2", "IxFl" |
    | numpy .npy | 93 "NUMPY" |
    | safetensors with one of `TENSOR_NAMES`, or a single tensor | anything else that is one |

    Args:
        sha256: expected hash of the file's bytes, hexadecimal.

    Raises:
        DataError: missing, too large, another hash, another format, harmful, damaged, or no finite [clusters, dim].
    """
    path = Path(path)
    what = f"quantizer {path}"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{what}: {path.stat().st_size} bytes, at most {MAX_BYTES} are read; is it a quantizer?")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{what}: not readable ({error.strerror or error}); check the path") from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256.strip().lower():
        raise DataError(f"{what}: its sha256 is {found}, expected {sha256.strip().lower()}; {GET_AGAIN}")
    centroids, source_format = _read_centers(content, what)
    return _checked(centroids, what, name=path.name, source_format=source_format, sha256=found)


def quantizer_tokenizer(
    quantizer: Quantizer,
    *,
    encoder: str,
    frame_rate_hz: float,
    sample_rate_hz: int,
    encoder_config: dict[str, Any] | None = None,
) -> SpeechTokenizer:
    """A tokenizer of these centroids for the features of that encoder; its `fit` tells where they came from."""
    if not 2 <= quantizer.clusters <= np.iinfo(np.int16).max:
        raise DataError(
            f"quantizer {quantizer.source_name}: {quantizer.clusters} clusters, units are 2..{np.iinfo(np.int16).max}; "
            "use a smaller quantizer"
        )
    return SpeechTokenizer(
        encoder_name=encoder,
        encoder_config=encoder_config or {},
        num_units=quantizer.clusters,
        frame_rate_hz=frame_rate_hz,
        sample_rate_hz=sample_rate_hz,
        centroids=quantizer.centroids,
        fit={
            "imported_from": quantizer.source_name,
            "source_format": quantizer.source_format,
            "source_sha256": quantizer.source_sha256,
            "source_dtype": quantizer.source_dtype,
            "clusters": quantizer.clusters,
            "dim": quantizer.dim,
            "statement": quantizer.statement,
        },
    )


def _checked(centroids: np.ndarray, what: str, *, name: str, source_format: str, sha256: str) -> Quantizer:
    if centroids.ndim != 2 or not all(centroids.shape) or centroids.dtype.kind != "f":
        raise DataError(
            f"{what}: holds {centroids.dtype} {list(centroids.shape)}, centroids are floats [clusters, dim]; "
            "give the file of the k-means itself"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(centroids, np.float32)
    if not np.isfinite(values).all():
        raise DataError(f"{what}: some centroids are NaN, infinite or beyond float32; {GET_AGAIN}")
    return Quantizer(
        centroids=values,
        source_name=name,
        source_format=source_format,
        source_sha256=sha256,
        source_dtype=str(centroids.dtype.newbyteorder("=")),
        rounding=float(np.abs(centroids.astype(np.float64) - values).max()),
    )


def _read_centers(content: bytes, what: str) -> tuple[np.ndarray, str]:
    """Centroids and the format's name."""
    if not content:
        raise DataError(f"{what}: the file is empty; {GET_AGAIN}")
    if content[:4] in FAISS_FLAT:
        return _faiss(content, what), FAISS_FLAT[content[:4]]
    if content[:2] == b"Ix" and content[:4].isalnum():
        raise DataError(
            f"{what}: a faiss index of kind {content[:4].decode()}, read is IndexFlatL2 (IxF2); "
            "save the centroids as a flat index or .npy"
        )
    if content[:6] == b"\x93NUMPY":
        return _npy(content, what), "npy"
    if content[:2] == b"PK":
        return _torch(content, what), "torch, weights only"
    for magic, (label, unpack) in _COMPRESSED.items():
        if content.startswith(magic):
            return _sklearn(_unpacked(unpack, content, label, what), what), f"joblib, {label}"
    for magic, label in {b"\x04\x22\x4d\x18": "lz4", b"ZF": "joblib before 0.10"}.items():
        if content.startswith(magic):
            raise DataError(f"{what}: compressed by {label}, which is not read; {REFUSE}")
    if content[8:9] == b"{":
        return _safetensors(content, what), "safetensors"
    return _sklearn(content, what), "joblib or pickle"


def _sklearn(content: bytes, what: str) -> np.ndarray:
    """cluster_centers_ of the one estimator in a dump."""
    read = read_inert(content, what)
    if isinstance(read, np.ndarray):
        return read
    state = read.state if isinstance(read, Inert) and read.kind == "estimator" else read
    centers = state.get("cluster_centers_") if isinstance(state, dict) else None
    if not isinstance(centers, np.ndarray):
        raise DataError(
            f"{what}: holds no fitted KMeans (no array cluster_centers_); give the file of the k-means itself"
        )
    return centers


def _unpacked(unpack: Callable[[], Any], content: bytes, label: str, what: str) -> bytes:
    """Decompress with a limit, so that a small file cannot fill the memory."""
    try:
        decoder = unpack()
        result: bytes = decoder.decompress(content, MAX_BYTES + 1)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, MemoryError) as error:
        raise DataError(f"{what}: damaged {label} data ({error}); {GET_AGAIN}") from error
    if len(result) > MAX_BYTES:
        raise DataError(f"{what}: unpacks to more than {MAX_BYTES} bytes; is it a quantizer?")
    if not decoder.eof:
        raise DataError(f"{what}: the {label} data stops early; {GET_AGAIN}")
    return result


_COMPRESSED: dict[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x78": ("zlib", zlib.decompressobj),
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(31)),
    b"BZ": ("bz2", bz2.BZ2Decompressor),
    b"\xfd7zXZ": ("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    b"\x5d\x00": ("lzma", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE)),
}


def _faiss(content: bytes, what: str) -> np.ndarray:
    """fourcc, int32 d, int64 n, two int64 that mean nothing, uint8 trained, int32 metric, uint64 floats, the floats."""
    header = struct.Struct("<4siqqqBi")
    try:
        _, dim, count, _, _, _, metric = header.unpack_from(content)
        (floats,) = struct.unpack_from("<Q", content, header.size)
    except struct.error as error:
        raise DataError(f"{what}: the faiss header stops early; {GET_AGAIN}") from error
    if metric != FAISS_L2:
        raise DataError(f"{what}: a faiss index of metric {metric}, units are made by L2 (1); refit it with L2")
    start = header.size + 8
    if dim < 1 or count < 1 or floats != dim * count or len(content) - start != 4 * floats:
        raise DataError(
            f"{what}: the faiss header promises {count} x {dim} numbers, {len(content) - start} bytes follow; "
            f"{GET_AGAIN}"
        )
    return np.frombuffer(content, "<f4", offset=start).reshape(count, dim)


def _npy(content: bytes, what: str) -> np.ndarray:
    try:
        with warnings.catch_warnings(action="ignore"):
            return np.asarray(np.load(BytesIO(content), allow_pickle=False))
    except Exception as error:  # whatever a damaged header makes Python's tokenizer raise
        raise DataError(f"{what}: no readable .npy ({str(error)[:120]}); {GET_AGAIN}") from error


def _safetensors(content: bytes, what: str) -> np.ndarray:
    try:
        return _one_array(load_safetensors(content), what)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{what}: no readable safetensors ({error}); {GET_AGAIN}") from error


def _torch(content: bytes, what: str) -> np.ndarray:
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):
            read = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"{what}: holds more than tensors and is not loaded ({first}); {REFUSE}") from error
    except Exception as error:  # whatever a damaged zip makes torch raise
        raise DataError(f"{what}: damaged, torch cannot read it ({type(error).__name__}); {GET_AGAIN}") from error
    named = read if isinstance(read, dict) else {"": read}
    tensors = {str(key): value for key, value in named.items() if isinstance(value, torch.Tensor)}
    return _one_array({key: _to_numpy(value, what) for key, value in tensors.items()}, what)


def _to_numpy(tensor: Any, what: str) -> np.ndarray:
    import torch

    if tensor.layout != torch.strided or not tensor.dtype.is_floating_point:
        return np.zeros(0)
    try:
        return np.asarray(tensor.detach().to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).numpy())
    except (RuntimeError, ValueError, TypeError) as error:
        raise DataError(f"{what}: a tensor is damaged ({type(error).__name__}); {GET_AGAIN}") from error


def _one_array(named: dict[str, np.ndarray], what: str) -> np.ndarray:
    """The array by a known name, or the only matrix."""
    for name in TENSOR_NAMES:
        if name in named:
            return named[name]
    matrices = [name for name, array in named.items() if array.ndim == 2]
    if len(matrices) != 1:
        raise DataError(
            f"{what}: holds the arrays {sorted(named)[:8]}, one must be named {' or '.join(TENSOR_NAMES)}; "
            "save the centroids alone"
        )
    return named[matrices[0]]
