"""Weights of a checkpoint folder: found, checked by their headers, and copied under other names, shard by shard.

Enters: a folder with safetensors, one file or shards with an index. Leaves: `Weights` (what stands where), or a folder
of the same shards with weights renamed and changed. The one decision worth knowing: every weight has one place. A copy
in another shard is left out if it is equal to the last bit, and said so; if it differs, nobody can say which one
counts, and the folder is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from speechscale.errors import DataError
from speechscale.files import read_json, write_json

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
REMEDY = "copy the checkpoint again"
FLOATS = ("F64", "F32", "F16", "BF16")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")
SAFE_WAY = (
    "on a machine that holds nothing else, load each file with torch.load(FILE, weights_only=True, map_location='cpu') "
    "and write it with safetensors.torch.save_file (the whole script: docs/interop.md, 'Pickled weights'), then give "
    "the new folder"
)
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of one folder.

    Args:
        shards: file names. places: weight -> the shard it is read from. shapes: weight -> its shape.
        notes: what was seen and left out, a sentence each.
    """

    folder: Path
    shards: tuple[str, ...]
    places: Mapping[str, str]
    shapes: Mapping[str, list[int]]
    notes: tuple[str, ...] = ()

    def read(self, name: str) -> Tensor:
        """One weight, alone."""
        with safe_open(self.folder / self.places[name], framework="pt") as opened:
            weight: Tensor = opened.get_tensor(name)
        return weight


def open_weights(folder: Path) -> Weights:
    """Find the weights of a folder and check that index, shards and headers agree; only headers are read.

    Raises:
        DataError: pickled weights, none at all, a shard that is broken, missing or lies outside, a weight that the
            index names and its shard lacks or the other way round, a weight with two values, numbers that are not
            floating point, or a shard of a model that the index does not name.
    """
    shards, table = _shards(folder)
    notes = _unlisted(folder, shards)
    headers = {shard: _header(folder / shard) for shard in shards}
    for name, shard in table.items():
        if name not in headers[shard]:
            raise DataError(f"'{folder / shard}': no weight '{name}', which {INDEX} says is there; {REMEDY}")
    places: dict[str, str] = {}
    for shard in shards:
        for name in headers[shard]:
            if table and name not in table:
                raise DataError(f"'{folder / shard}': {INDEX} does not know its weight '{name}'; {REMEDY}")
            home = table.get(name, shard)
            places[name] = home
            if home != shard:
                _require_equal(folder, name, home, shard)
                notes.append(f"{name} stands in {home} and, equal, in {shard}; written once")
    shapes = {name: headers[shard][name] for name, shard in places.items()}
    return Weights(folder=folder, shards=tuple(shards), places=places, shapes=shapes, notes=tuple(notes))


def copy_weights(
    weights: Weights, out: Path, names: Mapping[str, str], change: Callable[[str, Tensor], Tensor]
) -> None:
    """Write weights to a folder that exists, in shards of the same names.

    Args:
        names: weight in the files -> its new name; others are left out.
        change: (new name, weight) -> the weight to write.
    """
    table: dict[str, str] = {}
    total = 0
    for shard in weights.shards:
        mine = [name for name, place in weights.places.items() if place == shard and name in names]
        with safe_open(weights.folder / shard, framework="pt") as opened:
            made = {names[name]: change(names[name], opened.get_tensor(name)).contiguous() for name in mine}
        total += sum(weight.nbytes for weight in made.values())
        table |= dict.fromkeys(made, shard)
        if made:
            save_file(made, out / shard, metadata={"format": "pt"})
    if weights.shards != (SINGLE,):
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(table.items()))})


def _shards(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Names of the shards, and weight -> shard as the index says; nothing where there is no index."""
    if (folder / INDEX).is_file():
        table = read_json(folder / INDEX, "index of shards", REMEDY).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise DataError(f"'{folder / INDEX}': no weight_map; {REMEDY}")
        table = {str(name): str(shard) for name, shard in table.items()}
        for shard in sorted(set(table.values())):
            if Path(shard).name != shard or not shard.endswith(".safetensors"):
                raise DataError(f"'{folder / INDEX}': shard '{shard}' is no safetensors file of this folder; {REMEDY}")
        return sorted(set(table.values())), table
    if (folder / SINGLE).is_file():
        return [SINGLE], {}
    pickled = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickled:
        raise DataError(f"'{folder}': weights are pickled ('{pickled[0]}'), and reading them can run code; {SAFE_WAY}")
    raise DataError(f"'{folder}': neither {SINGLE} nor {INDEX}; {REMEDY}")


def _unlisted(folder: Path, shards: list[str]) -> list[str]:
    others = sorted(file.name for file in folder.glob("*.safetensors") if file.name not in shards)
    stray = [name for name in others if name.startswith("model")]
    if stray:
        raise DataError(
            f"'{folder}': '{stray[0]}' lies beside the shards, and {INDEX} does not name it; take away what does not "
            "belong to this model, or copy the checkpoint again"
        )
    return [f"{name} is no shard of the model; not read" for name in others]


def _header(path: Path) -> dict[str, list[int]]:
    """Weight -> shape."""
    try:
        with safe_open(path, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
            shapes = {name: list(part.get_shape()) for name, part in slices.items()}
    except FileNotFoundError:
        raise DataError(f"shard '{path}' is not there; let the download finish, or {REMEDY}") from None
    except (OSError, SafetensorError) as error:
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
        remedy = "it is only a pointer: run `git lfs pull` where it came from" if pointer else REMEDY
        raise DataError(f"shard '{path}' cannot be read ({error}); {remedy}") from error
    odd = [name for name, kind in kinds.items() if kind not in FLOATS]
    if odd:
        raise DataError(
            f"'{path}': '{odd[0]}' is {kinds[odd[0]]}, weights are read as {', '.join(FLOATS)}; give the checkpoint "
            "before it was quantized"
        )
    return shapes


def _require_equal(folder: Path, name: str, one: str, other: str) -> None:
    values = []
    for shard in (one, other):
        with safe_open(folder / shard, framework="pt") as opened:
            values.append(opened.get_tensor(name))
    if not same_bits(*values):
        raise DataError(f"'{folder}': weight '{name}' stands in '{one}' and in '{other}' with other values; {REMEDY}")


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two weights are equal to the last bit, NaN included."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    flat = [weight.contiguous().reshape(-1).view(torch.uint8) for weight in (one, other)]
    return torch.equal(*flat)
