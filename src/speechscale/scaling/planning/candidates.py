"""The laws that a plan may follow, published or fitted, in one form.

Enters: published laws, bootstraps, files of `speechscale fit --json`. Leaves: `Candidate`s.
The one decision worth knowing: a law without measured uncertainty gives estimates without intervals, never zero-width
ones; and a law that fitted no repeats is not lent those of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.scaling.intervals import Estimate, estimate
from speechscale.scaling.laws import LossLaw
from speechscale.scaling.published_laws import Modality, PublishedLaw
from speechscale.scaling.repeat import RepeatLaw

if TYPE_CHECKING:
    from speechscale.scaling.fitting.bootstrap import LawBootstrap
    from speechscale.scaling.tables.run_table import RunTable

CONSTANTS = ("E", "A", "B", "alpha", "beta")
REPEATS = ("R_N", "R_D")
Law = LossLaw | RepeatLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A law with what is known of it.

    Args:
        law: a RepeatLaw where repeats were fitted. replicates: the same with arrays as fields, None without any.
        own: fitted by the user. modality: None where the user's law did not say. units: "" likewise.
        flops_name: how N counts so that C = 6 N D; a convention of `model.flops`.
        tokens_per_unit: see `PublishedLaw`. why_no_interval: of a law without replicates.
        noise: standard deviation of log losses around an own fit, None where the file does not say.
    """

    name: str
    law: Law
    own: bool
    convention: str
    replicates: Law | None = field(default=None, repr=False)
    range_flops: tuple[float, float] | None = None
    modality: Modality | None = None
    units: str = ""
    flops_name: str = "6nd_total"
    tokens_per_unit: float | None = 1.0
    verified: str = "read"
    caveat: str = ""
    why_no_interval: str = "no replicates given"
    noise: float | None = None

    @property
    def base(self) -> LossLaw:
        return base_of(self.law)

    def of(self, quantity: Callable[[Any], Any]) -> Estimate:
        """Estimate a quantity of the law. Example: candidate.of(lambda law: base_of(law).loss_at(1e20))"""
        value = float(quantity(self.law))
        if self.replicates is None:
            return Estimate(value=value, low=None, high=None, method=self.why_no_interval)
        with np.errstate(over="ignore"):  # a wild replicate may lie beyond the largest float; it stays an outer one
            values = np.asarray(quantity(self.replicates), float)
        return estimate(value, values, method=f"{len(values)} bootstrap replicates, percentiles")


def base_of(law: Law) -> LossLaw:
    """The law of N and D alone."""
    return law.base if isinstance(law, RepeatLaw) else law


def loss_of(law: Law, N: Any, D: Any, unique: float | None) -> Any:
    """The loss, repeats priced where the law can and `unique` tokens are known."""
    return (
        law.predict(N, D, unique) if isinstance(law, RepeatLaw) and unique is not None else base_of(law).predict(N, D)
    )


def from_published(published: PublishedLaw) -> Candidate:
    """A published law as a candidate; none of them comes with replicates."""
    return Candidate(
        name=published.name,
        law=published.repeat_law or published.law,
        own=False,
        convention=published.convention,
        range_flops=published.compute_range_flops,
        modality=published.modality,
        units=published.units,
        tokens_per_unit=published.tokens_per_unit,
        verified=published.verified,
        caveat=published.caveat,
        why_no_interval="its source prints no uncertainty",
    )


def from_bootstrap(
    name: str, boot: LawBootstrap, *, range_flops: tuple[float, float], units: str = "", flops_name: str = "6nd_total"
) -> Candidate:
    """An own fit. Example: from_bootstrap("mine", bootstrap_law(fit), range_flops=(1e17, 1e19))"""
    return Candidate(
        name=name,
        law=boot.fit.law,
        replicates=boot.law,
        own=True,
        convention=f"own fit, {flops_name}",
        range_flops=range_flops,
        units=units,
        flops_name=flops_name,
    )


def from_table(
    table: RunTable, *, seed: int = 0, replicates: int = 1000
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Fit each arm of a table of runs, and bootstrap it by training run.

    Returns: the laws, and a sentence for each arm without one (too few runs, or a constant that is not measured).

    Raises:
        DataError: no arm has a law.
    """
    from speechscale.scaling.fitting.bootstrap import bootstrap_law
    from speechscale.scaling.fitting.fit import fit_loss_law
    from speechscale.scaling.tables.budgets import runs_of

    found, left_out = [], []
    for name, arm in table.each_arm():
        try:
            runs = arm.with_loss()
            assert runs.loss is not None
            fit = fit_loss_law(runs.params, runs.tokens, runs.loss)
            if fit.trouble:
                raise DataError(f"{fit.trouble}: not measured")
        except DataError as error:
            left_out.append(f"arm '{name or table.name}': {error}")
            continue
        words = set(runs.words("tokenizer"))
        made = from_bootstrap(
            name or table.name,
            bootstrap_law(fit, replicates=replicates, seed=seed, clusters=runs_of(runs)),
            range_flops=(float(runs.flops.min()), float(runs.flops.max())),
            units=words.pop() if len(words) == 1 else "",
            flops_name=_flops_name(table.flops_name),
        )
        found.append(replace(made, convention=table.convention, caveat="; ".join(fit.notes)))
    if not found:
        raise DataError(f"table {table.name}: no law can be fitted; {'; '.join(left_out)}")
    return tuple(found), tuple(left_out)


def own_laws(path: Path) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Read the laws of a file that `speechscale fit --json` wrote.

    Returns: the laws, and a sentence for each entry that holds none.

    Raises:
        DataError: not such a file, or no law in it.
    """
    content = read_json(path, "laws", "write it with `speechscale fit TABLE --json FILE`")
    entries = content.get("laws")
    if not isinstance(entries, list) or not entries:
        raise DataError(f"laws {path}: no list under 'laws'; write it with `speechscale fit TABLE --json FILE`")
    found, left_out = [], []
    for position, entry in enumerate(entries):
        try:
            found.append(from_record(entry, f"laws {path}, entry {position + 1}"))
        except DataError as error:
            left_out.append(str(error))
    if not found:
        raise DataError(f"laws {path}: none of {len(entries)} entries can be planned with; the first: {left_out[0]}")
    return tuple(found), tuple(left_out)


def from_record(entry: Any, where: str) -> Candidate:
    """Read one law of such a file; `where` begins its messages.

    Raises:
        DataError: no law, constants that are none, or a law whose constants were not measured.
    """
    law = entry.get("law") if isinstance(entry, Mapping) else None
    if not isinstance(law, Mapping):
        raise DataError(f"{where}: holds no law of N and D ({_reason(entry)})")
    status = entry.get("status", "fitted")
    if status != "fitted":
        raise DataError(f"{where}: status {status}, so its constants are not measured; add runs and fit again")
    stored = entry.get("constants") or {}
    point = {name: _number(law.get(name), f"{where}, {name}") for name in CONSTANTS}
    repeats = {}
    for name in REPEATS:
        value = law.get(name, stored.get(name))
        if value is not None:
            repeats[name] = _number(value.get("value") if isinstance(value, Mapping) else value, f"{where}, {name}")
    replicates, dropped = _replicates(entry.get("replicates") or {}, CONSTANTS + tuple(repeats))
    span = entry.get("range_flops")
    return Candidate(
        name=str(entry.get("name") or "own"),
        law=_law({**point, **repeats}),
        replicates=None if replicates is None else _law(replicates),
        own=True,
        convention=str(entry.get("convention") or "not stated"),
        range_flops=None if not span else (float(span[0]), float(span[1])),
        units=str(entry.get("tokenizer") or ""),
        flops_name=_flops_name(str(entry.get("flops_name") or "")),
        verified="own",
        caveat="; ".join(_caveats(entry, dropped, bool(repeats))),
        noise=_noise(entry),
        why_no_interval="the file holds fewer than 20 replicates that have an optimum",
    )


def _caveats(entry: Mapping[str, Any], dropped: int, repeats: bool) -> list[str]:
    said = [f"{dropped} replicates without an optimum left out"] if dropped else []
    form = entry.get("law_name") or "chinchilla"
    if form != "chinchilla" and not repeats:
        said.append(f"only the five constants of the form '{form}' are planned with: a run from scratch on speech")
    return said


def _noise(entry: Mapping[str, Any]) -> float | None:
    value = (entry.get("fit") or {}).get("residual_sd") if isinstance(entry.get("fit") or {}, Mapping) else None
    return float(value) if isinstance(value, int | float) and np.isfinite(value) and value > 0 else None


def _law(constants: Mapping[str, Any]) -> Law:
    base = LossLaw(**{name: constants[name] for name in CONSTANTS})
    if all(name in constants for name in REPEATS):
        return RepeatLaw(base=base, R_N=constants["R_N"], R_D=constants["R_D"])
    return base


def _replicates(stored: Mapping[str, Any], names: tuple[str, ...]) -> tuple[dict[str, np.ndarray] | None, int]:
    """Replicates with an optimum, and how many had none."""
    if not all(name in stored for name in names):
        return None, 0
    arrays = {name: np.asarray(stored[name], float).ravel() for name in names}
    if len({len(values) for values in arrays.values()}) != 1:
        return None, 0
    good = np.all([np.isfinite(values) & ((values > 0) | (name == "E")) for name, values in arrays.items()], axis=0)
    kept = {name: values[good] for name, values in arrays.items()}
    return (kept if good.sum() >= 20 else None), int((~good).sum())


def _flops_name(name: str) -> str:
    return name if name in ("6nd_total", "6nd_non_embedding", "6nd_head", "6nd_attention", "exact") else "6nd_total"


def _number(value: Any, where: str) -> float:
    if not isinstance(value, int | float) or not np.isfinite(value):
        raise DataError(f"{where}: {value!r} is not a finite number")
    return float(value)


def _reason(entry: Any) -> str:
    return (
        str(entry.get("reason") or entry.get("law_name") or "no key 'law'")
        if isinstance(entry, Mapping)
        else "no object"
    )
