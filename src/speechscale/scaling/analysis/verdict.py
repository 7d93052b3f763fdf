"""The verdict in plain words, computed from the numbers: loss, transfer, best sizes, limits.

Enters: multipliers, transfer rows, isoFLOP results of one part. Leaves: sentences.
The one decision worth knowing: no sentence knows which arm ought to win; "cannot tell" is what is said when an interval
spans 1 (loss) or a difference is below two standard errors (accuracy).
"""

from __future__ import annotations

from collections.abc import Sequence

from speechscale.scaling.analysis.multiplier import Multiplier, show_interval
from speechscale.scaling.analysis.multiplier_words import ruling, where
from speechscale.scaling.analysis.runs import DIRECTIONS, Part, is_true
from speechscale.scaling.analysis.transfer import CHANCE, Transfer
from speechscale.scaling.optima.isoflop import IsoFlop

FEW_HOURS = 0.05
FEW_RUNS = 3
SINGLE_EPOCH_LIMIT = 4.0
"""Beyond about four epochs repeated data is worth clearly less than new data (Muennighoff et al. 2023)."""
CLEAR = 2.0
"""Standard errors that a difference must exceed."""


def hours_of(part: Part) -> float | None:
    """Return the unique hours of speech of the part (the largest among its arms), None if unknown."""
    hours = [h for arm in part.arms if (h := part.largest(arm, "speech_hours_unique")) is not None]
    return max(hours) if hours else None


def loss_sentences(
    part: Part, final: Multiplier, best: Multiplier | None, final_charged: Multiplier, best_charged: Multiplier | None
) -> list[str]:
    """Word the compute multipliers of one arm, both checkpoints and both accounts."""
    hours = hours_of(part)
    at = "" if hours is None else f", at {hours:.2g} unique hours of speech"
    said = [f"For the same speech loss (final checkpoint) {_needs(final)}{at}{where(final)}: {ruling(final)}."]
    if final.status == "too_few_points":
        return [*said, *_gap_sentences(final, best)]
    if best is not None:
        both = "Both stopped early (best checkpoint, chosen on a split of its own)"
        said.append(f"{both}, {_needs(best)}{where(best)}: {ruling(best)}.")
    for name, plain, charged in (("final", final, final_charged), ("early-stopped", best, best_charged)):
        if plain is not None and charged is not None and charged.message != plain.message:
            said.append(f"Counting also the compute of the TextLM ({name}), {_needs(charged)}: {ruling(charged)}.")
    turn = _turn(final)
    return [*said, *([turn] if turn else []), *_gap_sentences(final, best)]


def _needs(m: Multiplier) -> str:
    names = f"the {m.arm} arm", f"the compute of the {m.baseline} arm"
    if m.status == "supported" and m.value is not None:
        return f"{names[0]} needs {m.value.value:.3g}{show_interval(m.value, m.open_low, m.open_high)} times {names[1]}"
    if m.status == "no_overlap":
        return f"{names[0]} needs {m.bound} {m.bound_value:.3g} times {names[1]}"
    return f"the {m.arm} arm cannot be compared with the {m.baseline} arm"


def _turn(m: Multiplier) -> str:
    """Say so when the answer turns around inside the measured range."""
    if m.at_high_loss is None or m.at_low_loss is None:
        return ""
    cheap, costly = m.at_high_loss, m.at_low_loss
    if not (cheap.excludes(1) and costly.excludes(1)) or (cheap.value < 1) == (costly.value < 1):
        return ""
    return (
        f"The answer turns with compute: {cheap.value:.3g}{show_interval(cheap)} times at the cheap end, "
        f"{costly.value:.3g}{show_interval(costly)} times at the costly end."
    )


def _gap_sentences(final: Multiplier, best: Multiplier | None) -> list[str]:
    """Word the difference of the losses at the largest common budget, at both checkpoints."""
    said = []
    for which, m in (("final", final), ("early-stopped", best)):
        if m is None or not m.gaps:
            continue
        gap, d = m.gaps[-1], m.gaps[-1].difference
        where = f"At the largest common budget ({gap.budget_flops:.2g} FLOPs) the {which} loss of {m.arm}"
        if d.low is None or d.high is None:
            shown, ruling = f"{d.value:+.3g} nats per unit", "cannot tell them apart, the noise was not measured"
        else:
            shown = f"{d.value:+.3g} [{d.low:+.3g}, {d.high:+.3g}] nats per unit"
            ruling = ("lower" if d.value < 0 else "higher") if d.excludes(0.0) else "cannot tell them apart"
        said.append(f"{where} minus that of {m.baseline} is {shown}: {ruling}.")
    return said


def transfer_sentences(part: Part, rows: Sequence[Transfer]) -> list[str]:
    """Word the accuracies on facts that were only read, per arm and direction; text -> text is the control."""
    return [
        _transfer_sentence(part, row)
        for arm in part.arms
        for direction in ("tt", "st", "ts", "ss")
        for row in rows
        if (row.arm, row.direction, row.set, row.tag) == (arm, direction, "facts", "read")
    ]


def _transfer_sentence(part: Part, row: Transfer) -> str:
    control = " (the control)" if row.direction == "tt" else ""
    start = f"{DIRECTIONS[row.direction]}{control}, facts that were only read: {row.arm} {row.accuracy:.3g}"
    if row.se is None or row.z_chance is None:
        return f"{start} (standard error not measured): cannot tell it from chance ({CHANCE:g})."
    counts = f"{row.items} items, {row.seeds} run(s)"
    text = f"{start} +/- {row.se:.2g} ({counts}), {_z(row.z_chance, f'chance ({CHANCE:g})')}"
    if row.arm == part.baseline:
        return f"{text}."
    if row.difference is None:
        return f"{text}; {part.baseline} has no score in this direction."
    if row.z_baseline is None:
        unknown = "whose standard error was not measured: cannot tell"
        return f"{text}; {row.difference:+.2g} against {part.baseline}, {unknown}."
    against = f"{row.difference:+.2g} +/- {row.difference_se:.2g} against {part.baseline}"
    return f"{text}; {against}, {_z(row.z_baseline, part.baseline)}."


def _z(z: float, than: str) -> str:
    if abs(z) < CLEAR:
        return f"{z:+.1f} s.e.: cannot tell it from {than}"
    return f"{z:+.1f} s.e.: {'above' if z > 0 else 'below'} {than}"


def size_sentences(results: Sequence[tuple[str, IsoFlop]]) -> list[str]:
    """Word the best sizes, edges included. results: (arm, isoFLOP of its final loss)."""
    said = []
    for arm in dict.fromkeys(arm for arm, _ in results):
        mine = [result for name, result in results if name == arm]
        said += [f"{arm}: {result.message}." for result in mine if result.status != "too_few_sizes"]
        few = sum(result.status == "too_few_sizes" for result in mine)
        if few:
            said.append(f"{arm}: fewer than 3 sizes at {few} of {len(mine)} budget(s), so no best size there.")
    return said


def small_data_sentence(part: Part, rows: Sequence[Transfer], multipliers: Sequence[Multiplier]) -> str:
    """Say that the numbers only show that the pipeline runs; "" when there is enough to say more."""
    only = "these numbers say that the pipeline runs, not which arm is better"
    hours = hours_of(part)
    if hours is not None and hours < FEW_HOURS:
        return f"Trained on only {hours:.2g} hours of speech: {only}."
    runs = min(len(part.runs(arm)) for arm in part.arms)
    undecided = all(m.status == "too_few_points" for m in multipliers) or runs < FEW_RUNS
    if len(part.arms) > 1 and undecided and not any(row.tag == "read" for row in rows):
        return f"Only {runs} run(s) in the smallest arm: {only}."
    return ""


def limit_sentences(part: Part, rows: Sequence[Transfer], multipliers: Sequence[Multiplier]) -> list[str]:
    """Say what weakens the numbers of this part. multipliers: final loss, not charged."""
    said = []
    if part.oracle_units:
        said.append("The units are the synthesizer's own phone labels (an oracle), not units found in audio.")
    if part.supervised_units:
        said.append("The encoder of the units learned from phone labels: no arm is textless in the papers' sense.")
    for arm in part.arms:
        epochs = part.largest(arm, "speech_epochs")
        if epochs is not None and epochs > SINGLE_EPOCH_LIMIT:
            said.append(
                f"{arm}: speech was repeated up to {epochs:.3g} times, a single-epoch law does not describe this."
            )
        edge = int(is_true(part.runs(arm), "learning_rate_at_edge").sum())
        if edge:
            runs = len(part.runs(arm))
            said.append(f"{arm}: {edge} of {runs} runs used a learning rate at the edge of those tried.")
    for m in multipliers:
        if m.gaps and not m.spread_measured:
            said.append(
                f"{m.arm} against {m.baseline}: run-to-run spread was not measured, loss intervals are too narrow."
            )
    if any(row.tag == "read" and row.seeds == 1 for row in rows):
        said.append("Accuracies of single runs: the spread between seeds is not in their standard errors.")
    tests = sum((row.z_chance is not None) + (row.z_baseline is not None) for row in rows)
    if tests >= 20:
        by_chance = max(1, round(0.05 * tests))
        said.append(f"{tests} comparisons of accuracies were made; about {by_chance} pass two s.e. by chance alone.")
    return [*said, *part.dropped]
