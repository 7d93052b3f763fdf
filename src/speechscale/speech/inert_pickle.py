"""Read the arrays of a pickled scikit-learn quantizer without unpickling it.

Enters: bytes of a pickle, or of a joblib dump (arrays lie between the opcodes). Leaves: dicts, lists, numbers, numpy
arrays and `Inert` records. The one decision worth knowing: nothing the file names is imported or called. A short list
of names is known; each becomes data by code in this module, and any other name or opcode is refused by name.

Source: Python's pickletools (the opcodes); joblib `numpy_pickle` 0.10-1.6 and numpy `multiarray` (the layouts read).
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, NoReturn

import numpy as np

from speechscale.errors import DataError

REFUSE = "convert it to .npy or .safetensors on a machine you trust"
MAX_OPCODES = 1_000_000
"""A quantizer takes some hundreds; each costs up to a hundred bytes of memory."""
_ESTIMATORS = ("KMeans", "MiniBatchKMeans")
_NAMES = {
    **{(f"sklearn.cluster.{module}", name): "estimator" for module in ("_kmeans", "k_means_") for name in _ESTIMATORS},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "reconstruct" for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): "scalar" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "frombuffer" for core in ("core", "_core")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): "wrapper",
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"): "wrapper",
    **{(module, "_reconstructor"): "reconstructor" for module in ("copyreg", "copy_reg")},
    **{(module, "object"): "object" for module in ("builtins", "__builtin__")},
    ("_codecs", "encode"): "encode",
    ("numpy.random._pickle", "__randomstate_ctor"): "random",
    ("numpy.random._pickle", "__bit_generator_ctor"): "random",
    ("numpy.random", "__RandomState_ctor"): "random",
    ("numpy.random._mt19937", "MT19937"): "random",
}
"""Global -> what this module makes of it."""
_OLD_JOBLIB = ("NDArrayWrapper", "ZNDArrayWrapper")
_DTYPE = re.compile(r"[<>=|]?[fiu][1248]|[<>=|]?b1")
_MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    MemoryError,
    AssertionError,
    struct.error,
)


@dataclass(slots=True)
class Inert:
    """Something the file describes, kept as data: its name, what it was made from, its state."""

    name: str
    kind: str
    arguments: Any = ()
    state: Any = None


class _Mark:
    """Where a MARK opcode stands on the stack."""


def read_inert(content: bytes, what: str) -> Any:
    """Interpret a pickle or an uncompressed joblib dump as inert data.

    Raises:
        DataError: it names something outside the list, uses an opcode a quantizer has no use for, or is malformed.
    """
    try:
        return _Reader(content, what).run()
    except DataError:
        raise
    except RecursionError as error:
        raise DataError(f"{what}: nested too deeply for a quantizer; {REFUSE}") from error
    except _MALFORMED as error:
        raise DataError(
            f"{what}: damaged, or no pickle ({type(error).__name__}: {str(error)[:120]}); get the file again"
        ) from error


class _Reader:
    """The stack machine; arrays of a joblib dump are read from the stream where joblib would read them."""

    def __init__(self, content: bytes, what: str) -> None:
        self.stream, self.size, self.what = BytesIO(content), len(content), what
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.stream)):
            name = opcode.name
            if count > MAX_OPCODES:
                raise DataError(f"{self.what}: more than {MAX_OPCODES} opcodes are no quantizer; {REFUSE}")
            if name == "STOP":
                return self.stack.pop()
            if name in _LITERALS:
                self.stack.append(argument)
            elif name in _ACTIONS:
                _ACTIONS[name](self, argument)
            elif name not in _IGNORED:
                raise DataError(f"{self.what}: the pickle opcode {name} has no place in a quantizer; {REFUSE}")
        raise EOFError("no STOP")

    def pop_mark(self) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := self.stack.pop(), _Mark):
            items.append(item)
        return items[::-1]

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def push_tuple(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :]) if count else ()
        if len(items) != count:
            raise ValueError("stack too short")
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            self._no("APPEND")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            self._no("SETITEMS")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_text(key) if isinstance(key, (str, bytes)) else int(key)] = value

    def make_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append({})
        self.set_items(items)

    def global_name(self, module: Any, name: Any) -> None:
        module, name = _text(module), _text(name)
        kind = _NAMES.get((module, name))
        if kind is None and name in _OLD_JOBLIB:
            raise DataError(
                f"{self.what}: written by joblib before 0.10 (arrays in files beside it); dump it again with a newer "
                "joblib on a machine you trust"
            )
        if kind is None:
            raise DataError(f"{self.what}: names {module}.{name}, which is no part of a k-means quantizer; {REFUSE}")
        self.stack.append(Inert(f"{module}.{name}", kind))

    def reduce(self, _: Any) -> None:
        arguments = self.stack.pop()
        called = self.stack.pop()
        if not isinstance(called, Inert) or not isinstance(arguments, tuple):
            self._no("REDUCE")
        self.stack.append(self._make(called, arguments))

    def new_object(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Inert) or kind.kind not in ("estimator", "wrapper") or arguments != ():
            self._no("NEWOBJ")
        self.stack.append(Inert(kind.name, kind.kind))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert) and target.kind == "array":
            self._become(target, _built_array(state))
        elif isinstance(target, Inert) and target.kind == "wrapper" and isinstance(state, dict):
            self._become(target, self._joblib_array(state))
        elif isinstance(target, Inert) and target.kind in ("dtype made", "estimator", "random"):
            target.state = state
        else:
            self._no("BUILD")

    def _become(self, shell: Inert, array: np.ndarray) -> None:
        """Put the array where its empty shell stood, also for later references in the memo."""
        self.stack[-1] = array
        for index, value in self.memo.items():
            if value is shell:
                self.memo[index] = array

    def _joblib_array(self, state: dict[str, Any]) -> np.ndarray:
        """Read the array that joblib wrote right behind the BUILD opcode of its wrapper."""
        dtype, shape = _dtype(state["dtype"]), _shape(state["shape"])
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self.stream.read(1)
            self.stream.seek(padding[0], 1)
        start, length = self.stream.tell(), prod(shape) * dtype.itemsize
        if start + length > self.size:
            raise EOFError(f"an array of {length} bytes, {self.size - start} left")
        array = np.frombuffer(self.stream.getbuffer()[start : start + length], dtype)
        self.stream.seek(start + length)
        return _ordered(array, shape, state.get("order", "C") == "F")

    def _make(self, called: Inert, arguments: tuple[Any, ...]) -> Any:
        """What the known names stand for when called."""
        kind = called.kind
        if kind == "encode":
            text, encoding = arguments
            if encoding != "latin1":
                raise ValueError(f"encoding {encoding!r}")
            return _text(text).encode("latin1")
        if kind == "dtype":
            return Inert(called.name, "dtype made", arguments)
        if kind == "scalar":
            dtype, raw = arguments
            return np.frombuffer(_bytes(raw), _dtype(dtype), count=1)[0]
        if kind == "reconstruct":
            return Inert(called.name, "array", arguments)
        if kind == "frombuffer":
            buffer, dtype, shape, order = arguments
            return _ordered(np.frombuffer(_bytes(buffer), _dtype(dtype)), _shape(shape), order == "F")
        if kind == "reconstructor":
            made = arguments[0]
            if isinstance(made, Inert) and made.kind in ("estimator", "wrapper"):
                return Inert(made.name, made.kind)
        if kind == "random":
            return Inert(called.name, "random", arguments)
        raise DataError(f"{self.what}: calls {called.name}, which a k-means quantizer does not; {REFUSE}")

    def _no(self, opcode: str) -> NoReturn:
        raise DataError(f"{self.what}: the pickle opcode {opcode} is used on something else than data; {REFUSE}")


def _built_array(state: Any) -> np.ndarray:
    """The state numpy gives an array: version, shape, dtype, Fortran order, raw bytes."""
    _, shape, dtype, fortran, raw = state
    return _ordered(np.frombuffer(_bytes(raw), _dtype(dtype)), _shape(shape), bool(fortran))


def _ordered(flat: np.ndarray, shape: tuple[int, ...], fortran: bool) -> np.ndarray:
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _dtype(made: Any) -> np.dtype[Any]:
    """The dtype of a record; numbers only."""
    if not isinstance(made, Inert) or made.kind != "dtype made":
        raise ValueError("no dtype")
    code = _text(made.arguments[0])
    if not _DTYPE.fullmatch(code):
        raise ValueError(f"dtype {code!r} is not a number")
    order = _text(made.state[1]) if made.state is not None else "="
    if order not in ("<", ">", "|", "="):
        raise ValueError("unknown byte order")
    # A pickle that does not name the order was written by a little-endian machine.
    return np.dtype(code).newbyteorder(">" if order == ">" else "<")


def _shape(shape: Any) -> tuple[int, ...]:
    # The message must not print the value: a nest of references can be endless to print.
    if not isinstance(shape, tuple) or len(shape) > 8 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("no shape of an array")
    return shape


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("latin1")
    if not isinstance(value, str):
        raise TypeError(f"text needed, not {type(value).__name__}")
    return value


def _bytes(value: Any) -> bytes:
    """Raw bytes; Python 2 wrote them as text."""
    if isinstance(value, str):
        return value.encode("latin1")
    if not isinstance(value, (bytes, bytearray)):
        raise TypeError(f"bytes needed, not {type(value).__name__}")
    return bytes(value)


_IGNORED = {"PROTO", "FRAME"}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
"""Opcodes that push their own argument."""
_ACTIONS: dict[str, Callable[[_Reader, Any], Any]] = {
    "NONE": lambda r, _: r.stack.append(None),
    "NEWTRUE": lambda r, _: r.stack.append(True),
    "NEWFALSE": lambda r, _: r.stack.append(False),
    "MARK": lambda r, _: r.stack.append(_Mark()),
    "POP": lambda r, _: r.stack.pop(),
    "POP_MARK": lambda r, _: r.pop_mark(),
    "EMPTY_LIST": lambda r, _: r.stack.append([]),
    "EMPTY_DICT": lambda r, _: r.stack.append({}),
    "EMPTY_TUPLE": lambda r, _: r.stack.append(()),
    "LIST": lambda r, _: r.stack.append(r.pop_mark()),
    "TUPLE": lambda r, _: r.stack.append(tuple(r.pop_mark())),
    "DICT": _Reader.make_dict,
    "TUPLE1": lambda r, _: r.push_tuple(1),
    "TUPLE2": lambda r, _: r.push_tuple(2),
    "TUPLE3": lambda r, _: r.push_tuple(3),
    "APPEND": lambda r, _: r.append([r.stack.pop()]),
    "APPENDS": lambda r, _: r.append(r.pop_mark()),
    "SETITEM": lambda r, _: r.set_items([r.stack.pop(-2), r.stack.pop()]),
    "SETITEMS": lambda r, _: r.set_items(r.pop_mark()),
    **{name: (lambda r, i: r.put(int(i))) for name in ("PUT", "BINPUT", "LONG_BINPUT")},
    **{name: (lambda r, i: r.get(int(i))) for name in ("GET", "BINGET", "LONG_BINGET")},
    "MEMOIZE": _Reader.memoize,
    "GLOBAL": lambda r, text: r.global_name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda r, _: r.global_name(r.stack.pop(-2), r.stack.pop()),
    "REDUCE": _Reader.reduce,
    "NEWOBJ": _Reader.new_object,
    "BUILD": _Reader.build,
}
