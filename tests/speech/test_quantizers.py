"""Catches quantizer files that run code, read wrong, or pass although they are damaged."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from speechscale.errors import DataError
from speechscale.speech import inert_pickle, quantizers
from speechscale.speech.inert_pickle import read_inert
from speechscale.speech.quantizers import quantizer_tokenizer, read_quantizer
from speechscale.speech.units import SpeechTokenizer

joblib = pytest.importorskip("joblib")
cluster = pytest.importorskip("sklearn.cluster")

POINTS = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)


def estimator(kind: str) -> Any:
    """Quantizers as the published ones were made: in one go, or by partial fits with a generator of their own."""
    with warnings.catch_warnings(action="ignore"):
        if kind == "kmeans":
            return cluster.KMeans(7, n_init=1, random_state=0).fit(POINTS.astype(np.float64))
        model = cluster.MiniBatchKMeans(7, n_init=1, random_state=np.random.RandomState(3))
        return model.partial_fit(POINTS[:100]).partial_fit(POINTS)


@pytest.mark.parametrize("kind", ["kmeans", "minibatch"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_joblib_dumps(tmp_path: Path, kind: str, protocol: int, compress: Any) -> None:
    model, path = estimator(kind), tmp_path / "km.bin"
    joblib.dump(model, path, compress=compress, protocol=protocol)
    read = read_quantizer(path)
    assert read.centroids.tobytes() == model.cluster_centers_.astype(np.float32).tobytes()
    assert read.source_dtype == str(model.cluster_centers_.dtype)
    assert read.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_pickles(tmp_path: Path, protocol: int) -> None:
    model, path = estimator("minibatch"), tmp_path / "km.pkl"
    path.write_bytes(pickle.dumps(model, protocol=protocol))
    assert read_quantizer(path).centroids.tobytes() == model.cluster_centers_.astype(np.float32).tobytes()


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (b"csklearn.cluster._kmeans\n", b"csklearn.cluster.k_means_\n"),
        (b"cjoblib.numpy_pickle\n", b"csklearn.externals.joblib.numpy_pickle\n"),
    ],
)
def test_names_of_older_versions(tmp_path: Path, new: bytes, old: bytes) -> None:
    """The published files were dumped by scikit-learn 0.2x and numpy 1."""
    model, path = estimator("minibatch"), tmp_path / "km.bin"
    joblib.dump(model, path, protocol=2)
    content = path.read_bytes()
    assert new in content
    path.write_bytes(content.replace(new, old))
    assert read_quantizer(path).centroids.tobytes() == model.cluster_centers_.astype(np.float32).tobytes()


@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_names_of_both_numpy_versions(tmp_path: Path, core: bytes) -> None:
    model, path = estimator("minibatch"), tmp_path / "km.bin"
    content = pickle.dumps(model, protocol=2).replace(b"numpy._core.", b"numpy.core.")
    assert b"cnumpy.core.multiarray\n" in content
    path.write_bytes(content.replace(b"numpy.core.", core))
    assert read_quantizer(path).centroids.tobytes() == model.cluster_centers_.astype(np.float32).tobytes()


class Harmful:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.target}'",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("inside", [False, True])
def test_a_pickle_that_runs_a_command_is_refused_and_does_not_run(tmp_path: Path, protocol: int, inside: bool) -> None:
    target, path = tmp_path / "ran", tmp_path / "km.bin"
    model = estimator("kmeans")
    model.extra = Harmful(target)
    path.write_bytes(pickle.dumps(model if inside else Harmful(target), protocol=protocol))
    with pytest.raises(DataError, match=r"names (posix|nt)\.system, which is no part of a k-means quantizer; convert"):
        read_quantizer(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())  # it is harmful indeed
    assert target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"csklearn.cluster._kmeans\nKMeans\n(S'x'\ntR.",
        b"cnumpy\nndarray\n(I10\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(tR)R.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"\x80\x02(I1\nI2\nicollections\nOrderedDict\n.",
        b"\x80\x02P1\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05}\x97.",
        b"\x80\x04]\x94(h\x00h\x00e\x85\x94b.",
        b"csklearn.cluster._kmeans\nKMeans\n)\x81.",
        b"(dS'cluster_centers_'\nI5\ns.",
        b".",
        b"\x80\x04",
    ],
)
def test_crafted_pickles_are_refused(tmp_path: Path, content: bytes) -> None:
    """Catches opcodes or calls that slip past the list of names."""
    path = tmp_path / "km.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"km\.bin"):
        read_quantizer(path)


def test_endless_opcodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each empty list costs one byte in the file and many in memory."""
    monkeypatch.setattr(inert_pickle, "MAX_OPCODES", 1000)
    with pytest.raises(DataError, match="more than 1000 opcodes"):
        read_inert(b"\x80\x04" + b"]" * 1001 + b".", "x")


def test_a_nest_of_references_is_refused_in_no_time() -> None:
    """Two references per level double what a message would print; 200 levels never end."""
    laughs = b"(t\x94" + b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(200))
    content = (
        b"\x80\x04" + laughs + b"cnumpy.core.numeric\n_frombuffer\n(C\x08aaaaaaaacnumpy\ndtype\n(Vf8\ntRh\xc8VC\ntR."
    )
    with pytest.raises(DataError, match="no shape of an array"):
        read_inert(content, "x")


def samples(folder: Path) -> list[bytes]:
    model = estimator("minibatch")
    joblib.dump(model, folder / "a.bin")
    joblib.dump(model, folder / "b.bin", compress=3)
    (folder / "c.bin").write_bytes(pickle.dumps(model, protocol=2))
    np.save(folder / "d.npy", model.cluster_centers_)
    save_file({"centroids": model.cluster_centers_}, folder / "e.bin")
    torch.save({"centroids": torch.from_numpy(model.cluster_centers_)}, folder / "f.bin")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_give_data_errors_only(tmp_path: Path, data: st.DataObject) -> None:
    """Catches tracebacks, endless loops and imports; what is still read is a finite matrix."""
    folder = tmp_path / "samples"
    if not folder.exists():
        folder.mkdir()
        samples(folder)
    content = bytearray(data.draw(st.sampled_from(sorted(folder.iterdir()))).read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.bin"
    path.write_bytes(bytes(content))
    try:
        read = read_quantizer(path)
    except DataError as error:
        assert str(error).startswith(f"quantizer {path}: ")  # noqa: PT017
        assert "; " in str(error)  # noqa: PT017
    else:
        assert read.centroids.ndim == 2
        assert np.isfinite(read.centroids).all()


def test_other_formats(tmp_path: Path) -> None:
    centers = POINTS[:9]
    np.save(tmp_path / "a", centers.astype(np.float64) + 1e-12)
    np.save(tmp_path / "b", np.asfortranarray(centers))
    save_file({"centroids": centers, "bias": POINTS[:2]}, tmp_path / "c")
    save_file({"only": centers}, tmp_path / "d")
    torch.save(torch.from_numpy(centers), tmp_path / "e")
    torch.save({"cluster_centers_": torch.from_numpy(centers), "n": 3}, tmp_path / "f")
    for name in ("a.npy", "b.npy", "c", "d", "e", "f"):
        assert np.array_equal(read_quantizer(tmp_path / name).centroids, centers), name
    assert "float64 to float32 rounded by at most" in read_quantizer(tmp_path / "a.npy").statement
    assert "bit for bit" in read_quantizer(tmp_path / "b.npy").statement


def test_faiss(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    for index in (faiss.IndexFlatL2(6), faiss.IndexFlat(6, faiss.METRIC_L2)):
        index.add(POINTS[:9])
        faiss.write_index(index, str(tmp_path / "l2"))
        assert np.array_equal(read_quantizer(tmp_path / "l2").centroids, POINTS[:9])
    content = (tmp_path / "l2").read_bytes()
    (tmp_path / "short").write_bytes(content[:-4])
    with pytest.raises(DataError, match="promises 9 x 6 numbers, 212 bytes follow"):
        read_quantizer(tmp_path / "short")
    for other in (faiss.IndexFlatIP(6), faiss.IndexHNSWFlat(6, 4)):
        other.add(POINTS[:9])
        faiss.write_index(other, str(tmp_path / "other"))
        with pytest.raises(DataError, match=r"a faiss index of kind|damaged, or no pickle"):
            read_quantizer(tmp_path / "other")


def test_wrong_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "km.npy"
    with pytest.raises(DataError, match="not readable"):
        read_quantizer(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        read_quantizer(path)
    for array, message in (
        (np.zeros((3, 4), np.int64), "int64 .3, 4., centroids are floats"),
        (np.zeros(4), "float64 .4., centroids"),
        (np.zeros((0, 4)), "centroids are floats"),
        (np.full((2, 2), np.nan), "NaN, infinite"),
        (np.full((2, 2), 1e300), "beyond float32"),
    ):
        np.save(path, array)
        with pytest.raises(DataError, match=message):
            read_quantizer(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"no readable \.npy"):
        read_quantizer(path)
    (tmp_path / "km.pkl").write_bytes(pickle.dumps({"a": [1, 2.5, None, True, "x"]}))
    with pytest.raises(DataError, match="no array cluster_centers_"):
        read_quantizer(tmp_path / "km.pkl")
    torch.save({"a": Harmful(tmp_path / "ran")}, tmp_path / "km.pt")
    with pytest.raises(DataError, match="holds more than tensors and is not loaded"):
        read_quantizer(tmp_path / "km.pt")
    assert not (tmp_path / "ran").exists()
    joblib.dump(estimator("kmeans"), tmp_path / "km.gz", compress=("gzip", 3))
    monkeypatch.setattr(quantizers, "MAX_BYTES", 1500 if (tmp_path / "km.gz").stat().st_size < 1500 else 0)
    with pytest.raises(DataError, match="unpacks to more than 1500 bytes"):
        read_quantizer(tmp_path / "km.gz")


def test_another_checksum_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "km.npy", POINTS[:4])
    right = hashlib.sha256((tmp_path / "km.npy").read_bytes()).hexdigest()
    assert read_quantizer(tmp_path / "km.npy", sha256=right.upper() + "\n").source_sha256 == right
    with pytest.raises(DataError, match=f"its sha256 is {right}, expected {'0' * 64}; get the file again"):
        read_quantizer(tmp_path / "km.npy", sha256="0" * 64)


def test_two_quantizers_never_share_a_name(tmp_path: Path) -> None:
    """slamkit caches every quantizer of one size under one name."""
    names = set()
    for index in range(3):
        np.save(tmp_path / "km.npy", POINTS[index : index + 4])
        names.add(read_quantizer(tmp_path / "km.npy").cache_name)
    assert len(names) == 3
    assert all(name.startswith("kmeans-4x6-") for name in names)


def test_tokenizer_keeps_the_source(tmp_path: Path) -> None:
    joblib.dump(estimator("kmeans"), tmp_path / "km.bin")
    quantizer = read_quantizer(tmp_path / "km.bin")
    made = quantizer_tokenizer(quantizer, encoder="hubert", frame_rate_hz=25.0, sample_rate_hz=16_000)
    made.save(tmp_path / "tokenizer")
    loaded = SpeechTokenizer.load(tmp_path / "tokenizer")
    assert loaded.fingerprint == made.fingerprint
    assert loaded.fit["source_sha256"] == quantizer.source_sha256
    assert (loaded.num_units, loaded.fit["dim"], loaded.fit["source_dtype"]) == (7, 6, "float64")
    assert quantizer.statement in loaded.fit["statement"]
    one = read_quantizer_of(tmp_path, POINTS[:1])
    with pytest.raises(DataError, match=r"1 clusters, units are 2\.\.32767"):
        quantizer_tokenizer(one, encoder="hubert", frame_rate_hz=25.0, sample_rate_hz=16_000)


def read_quantizer_of(folder: Path, centers: np.ndarray) -> quantizers.Quantizer:
    buffer = io.BytesIO()
    np.save(buffer, centers)
    (folder / "one.npy").write_bytes(buffer.getvalue())
    return read_quantizer(folder / "one.npy")
