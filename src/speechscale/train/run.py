"""Carry a job out: model, data, loop, log, checkpoints, and the folder that is left.

Enters: a `TrainJob`, a run folder, the processes. Leaves in the folder: job.json, metrics.jsonl, checkpoints/, best/,
model/ (stock Hugging Face folders with the vocabulary) and, last, result.json.
The one decision worth knowing: everything that is chosen here (loaders, checkpoints, kernels, writers) is how, not
what: the recipe alone decides the numbers, and it is the folder's name tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from speechscale.files import read_json, write_json
from speechscale.model.flops import Flops, flops_per_token
from speechscale.model.peak import device_name, gpu_hours_and_money, known_peak, measured_peak
from speechscale.model.shape import Size, params
from speechscale.model.sizes import get_size
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.adapt import Adaptation
from speechscale.train.checkpoints import Checkpoint
from speechscale.train.config import Runtime, TrainConfig, resolve_precision
from speechscale.train.feed import feed, find_vocabulary, open_mixture, open_validation
from speechscale.train.job import TrainJob, need
from speechscale.train.logs import RunLog
from speechscale.train.loop import Check, Hooks, TrainResult, train
from speechscale.train.losses import Losses, Rates
from speechscale.train.meter import Meter
from speechscale.train.parallel import Group
from speechscale.train.run_folder import RESULT, MakeSinks, Opened, claim, open_run, save_folder
from speechscale.train.start import make_model, shape_of
from speechscale.train.step import StepReport, modality_counts
from speechscale.train.stopping import StopRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a job is carried out here and now; see `Runtime` too.

    Args:
        fresh: remove what an earlier start left. workers: loader processes. keep_last: checkpoints.
        dollars_per_hour: of one device.
    """

    runtime: Runtime = field(default_factory=Runtime)
    fresh: bool = False
    workers: int = 0
    keep_last: int = 2
    dollars_per_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job with its vocabulary, shape and budget worked out; spends nothing."""

    job: TrainJob
    vocabulary: Vocabulary
    size: Size
    config: TrainConfig
    flops: Flops


class Probe(Protocol):
    """Choices scored along the run (docs/probing_runs.md): a `ProbeHook` that also has something to tell."""

    def __call__(self, model: Any, number: int, last: bool) -> Mapping[str, Any]: ...

    def notes(self) -> list[str]:
        """What a reader of the run should know; each is told once."""
        ...


def prepare(job: TrainJob) -> Prepared:
    """Work out what a job is, without its data or weights where that can be avoided.

    Raises:
        DataError: no vocabulary, no such size or model, a budget that does not fit.
    """
    data, recipe = need(job)
    vocabulary = Vocabulary.load(find_vocabulary(data))
    size = get_size(job.model.size) if job.model.start == "scratch" else shape_of(job.model)
    config = recipe.config(size, vocabulary.size)
    return Prepared(
        job=job,
        vocabulary=vocabulary,
        size=size,
        config=config,
        flops=flops_per_token(size, vocabulary.size, config.context),
    )


def run_job(
    prepared: Prepared,
    folder: Path,
    group: Group,
    options: Options,
    *,
    stop: StopRequest | None = None,
    sinks: MakeSinks = list,
    probe: Probe | None = None,
) -> dict[str, Any]:
    """Run a job to its end, or go on with it. Called by all processes.

    Args:
        probe: what measures the model at each check; it changes nothing that is trained.

    Returns:
        What result.json holds; {"stopped": reason, ...} if it was interrupted, and can go on.

    Raises:
        StaleStep: the folder belongs to another recipe.
        DataError, FloatingPointError, ConnectionError: see `train`.
    """
    claim(_recipe(prepared), folder, group, fresh=options.fresh)
    if (folder / RESULT).is_file():
        return read_json(folder / RESULT, "result", "delete it to run again")
    with open_run(folder, group, keep_last=options.keep_last, sinks=sinks) as opened:
        return _Running(prepared, folder, group, options, opened, probe).go(stop or StopRequest())


def _recipe(prepared: Prepared) -> dict[str, Any]:
    return {
        "job": prepared.job.model_dump(mode="json", exclude={"probes"}),  # they change no number of the training
        "vocabulary": prepared.vocabulary.fingerprint,
        "tokens": prepared.config.tokens,
    }


@dataclass(slots=True)
class _Running:
    """A job under way."""

    prepared: Prepared
    folder: Path
    group: Group
    options: Options
    opened: Opened
    probe: Probe | None = None

    def go(self, stop: StopRequest) -> dict[str, Any]:
        prepared, config, start = self.prepared, self.prepared.config, self.opened.start
        data, _ = need(prepared.job)
        mixture = open_mixture(data, prepared.vocabulary, config.context, config.tokens)
        validation, rates = open_validation(prepared.job.validation, data, prepared.vocabulary, config.context)
        model = self._model().to(self.group.device)
        state = None if start is None else start.state["data"]
        batches = feed(mixture, config.batch_rows, self.group, state=state, workers=self.options.workers)
        meter = None
        if self.opened.log is not None:
            meter = self._meter(model, start)
            self._log_start(self.opened.log, model, meter)
        result = train(
            model,
            batches,
            config,
            modality=prepared.vocabulary.modality_table(),
            units=prepared.vocabulary.units_per_id(),
            validation=validation,
            runtime=replace(self.options.runtime, dump=self.folder, save_best="select" in validation),
            hooks=self._hooks(meter, rates, stop),
            group=self.group,
            checkpoints=self.opened.saves,
            start=start,
        )
        return self._finish(model, result, rates)

    def _model(self) -> Any:
        prepared = self.prepared
        adaptation = Adaptation(**prepared.job.adapt.model_dump())
        return make_model(prepared.job.model, prepared.vocabulary, prepared.size, prepared.config.context, adaptation)

    def _meter(self, model: Any, start: Checkpoint | None) -> Meter:
        return Meter(
            tokens=self.prepared.config.tokens,
            every=self.options.runtime.log_every,
            flops_per_token=self.prepared.flops.flops_exact,
            peak=measured_peak(self.group.device, resolve_precision(self.prepared.config.precision, model)),
            datasheet=known_peak(device_name(self.group.device)),
            world=self.group.world,
            dollars_per_hour=self.options.dollars_per_hour,
            seconds=0.0 if start is None else start.state["seconds"],
            probe_seconds=0.0 if start is None else sum(c.get("probe_seconds", 0.0) for c in start.state["checks"]),
            targets=Counter() if start is None else modality_counts(start.state["counts"]),
        )

    def _log_start(self, log: RunLog, model: Any, meter: Meter) -> None:
        count = params(self.prepared.size, self.prepared.vocabulary.size)
        log.start(
            {
                "config": _recipe(self.prepared),
                "probes": {name: probe.model_dump() for name, probe in self.prepared.job.probes.items()},
                "params_total": count.total,
                "params_non_embedding": count.non_embedding,
                "params_trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
                "flops_per_token_exact": self.prepared.flops.flops_exact,
                "peak_flops": meter.peak.flops_per_s,
                "peak": meter.peak.how,
                "peak_flops_datasheet": None if meter.datasheet is None else meter.datasheet.flops_per_s,
                "world": self.group.world,
                "parallel": self.options.runtime.parallel if self.group.world > 1 else "none",
                "device": str(self.group.device),
                "precision": resolve_precision(self.prepared.config.precision, model),
                "versions": {name: version(name) for name in ("speechscale", "torch", "transformers")},
                "resumed_from": self.opened.start_step,
            }
        )

    def _hooks(self, meter: Meter | None, rates: Mapping[str, Rates], stop: StopRequest) -> Hooks:
        log = self.opened.log

        def on_step(report: StepReport) -> None:
            event = None if meter is None else meter.add(report)
            if log is not None and event is not None:
                log.step(event)
            self.opened.tell_notes()

        def on_check(model: Any, check: Check) -> None:
            if log is not None:
                event = {"step": check.step, "tokens_seen": check.tokens_seen, "losses": _logged(check.losses, rates)}
                probed = {"probes": check.probes, "probe_seconds": check.probe_seconds} if check.probes else {}
                log.check(event | probed)
            if meter is not None:
                meter.leave_out(check.probe_seconds)
            if self.probe is not None:
                self.opened.notes.extend(self.probe.notes())
                self.opened.tell_notes()

        return Hooks(
            on_step=on_step,
            on_check=on_check,
            probe=self.probe,
            on_save=self.opened.log_save,
            stop=stop,
            with_best=self._save_best,
        )

    def _save_best(self, model: Any) -> None:
        if "select" in self.prepared.job.validation:
            save_folder(model, self.prepared.vocabulary, self.folder / "best", self.group)

    def _finish(self, model: Any, result: TrainResult, rates: Mapping[str, Rates]) -> dict[str, Any]:
        if not result.interrupted:
            save_folder(model, self.prepared.vocabulary, self.folder / "model", self.group)
        record = {
            "stopped": result.stopped,
            "interrupted": result.interrupted,
            "steps": result.steps,
            "tokens_seen": result.tokens_seen,
            "best_tokens_seen": result.best_tokens_seen,
            "targets": {stream: dict(kinds) for stream, kinds in result.targets.items()},
            "losses_final": _logged(result.final, rates),
            "losses_best": _logged(result.best, rates),
            "precision": result.precision,
            "seconds": result.seconds,
            "probe_seconds": result.probe_seconds,
            "gpu_hours": gpu_hours_and_money(
                result.seconds + result.probe_seconds, self.group.world, None
            ).device_hours,
            "flops": asdict(self.prepared.flops.times(result.tokens_seen)),
        }
        self.opened.tell_notes()
        if self.opened.log is not None:
            stop = {key: record[key] for key in ("steps", "tokens_seen", "seconds", "losses_final", "losses_best")}
            self.opened.log.stop({"reason": result.stopped or "budget of tokens", "step": result.steps, **stop})
        if self.group.leads and not result.interrupted:
            write_json(self.folder / RESULT, record)
        return record


def _logged(losses: Mapping[str, Losses], rates: Mapping[str, Rates]) -> dict[str, dict[str, float | None]]:
    return {name: {k: v for k, v in found.per(rates[name]).items() if v is not None} for name, found in losses.items()}
