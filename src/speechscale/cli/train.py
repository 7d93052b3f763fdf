"""`speechscale train CONFIG`: one training, on one process or, under torchrun or srun, on many."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from speechscale.train.job import TrainJob
    from speechscale.train.parallel import Group
    from speechscale.train.run import Options


@click.command("run")
@click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run [runs/train-NAME].")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
@click.option("--dry-run", is_flag=True, help="Print parameters, compute and memory; train nothing.")
@click.option("--fresh", is_flag=True, help="Remove what an earlier start left in the folder.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--parallel", type=click.Choice(["ddp", "fsdp"]), default="ddp", show_default=True)
@click.option("--micro-rows", type=click.IntRange(min=1), help="Rows of one forward pass on one process [all].")
@click.option("--recompute", is_flag=True, help="Keep no activations inside blocks (gradient checkpointing).")
@click.option(
    "--attention",
    type=click.Choice(["auto", "mask", "varlen", "flex"]),
    default="auto",
    show_default=True,
    help="Kernel that keeps documents apart.",
)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile each block.")
@click.option("--workers", type=click.IntRange(min=0), help="Loader processes [0 on a CPU, 1 on a GPU].")
@click.option("--log-every", type=click.IntRange(min=1), default=1, show_default=True, help="Steps between log lines.")
@click.option("--save-every-tokens", type=click.IntRange(min=1), help="Tokens between checkpoints.")
@click.option("--save-every-s", type=float, default=1800, show_default=True, help="Seconds between checkpoints.")
@click.option("--keep-last", type=click.IntRange(min=1), default=2, show_default=True, help="Checkpoints that stay.")
@click.option("--max-s", type=click.FloatRange(min=0, min_open=True), help="End after this wall time.")
@click.option("--dollars-per-hour", type=click.FloatRange(min=0), help="Price of one device, for the bill.")
@click.option("--writer", "writers", multiple=True, help="tensorboard, wandb or trackio; may be given several times.")
@click.option("--project", help="Project of W&B and trackio.")
@click.option("--timeout-s", type=click.FloatRange(min=1), default=600, show_default=True, help="Silence of a peer.")
@click.option("--memory-gb", type=click.FloatRange(min=0, min_open=True), help="Of a device, for --dry-run.")
@click.option("--world", type=click.IntRange(min=1), help="Devices to plan for, with --dry-run.")
@click.pass_context
def run(ctx: click.Context, config: Path, out: Path | None, overrides: tuple[str, ...], **options: Any) -> None:
    """Train as CONFIG (a TOML file) says, or go on where a run was.

    Alone: speechscale train CONFIG. On 8 GPUs: torchrun --nproc-per-node 8 -m speechscale train CONFIG.
    """
    from speechscale.settings import parse_override
    from speechscale.train.job import load_job

    job = load_job(config, dict(parse_override(entry) for entry in overrides))
    folder = out or Path("runs") / f"train-{config.stem}"
    if options["dry_run"]:
        _plan(job, options)
        return
    try:
        code = _train(job, folder, options)
    except (FloatingPointError, ConnectionError) as error:
        click.echo(f"error: {error}", err=True)
        code = 1
    ctx.exit(code)


def _train(job: TrainJob, folder: Path, options: dict[str, Any]) -> int:
    from speechscale.train.parallel import open_group
    from speechscale.train.stopping import stop_requests

    with (
        stop_requests() as stop,
        open_group(options["device"], timeout_s=options["timeout_s"]) as group,
    ):
        sinks = partial(_sinks, folder, options)
        if job.preference is not None:
            from speechscale.train.run_preference import run_preference

            record = run_preference(job, folder, group, _options(options, group), stop=stop, sinks=sinks)
        else:
            from speechscale.study.probes import open_probes
            from speechscale.train.feed import unit_makers
            from speechscale.train.run import prepare, run_job

            prepared = prepare(job)
            makers = unit_makers(job.data) if job.data is not None and job.probes else ()
            context = prepared.config.context
            probe = open_probes(job.probes, prepared.vocabulary, group, context=context, trained_on=makers)
            how = _options(options, group)
            record = run_job(prepared, folder, group, how, stop=stop, sinks=sinks, probe=probe)
        if group.leads:
            click.echo(_summary(record, folder))
        return stop.exit_code if record["interrupted"] else 0


def _options(options: dict[str, Any], group: Group) -> Options:
    from speechscale.train.config import Runtime
    from speechscale.train.run import Options

    workers = options["workers"]
    return Options(
        runtime=Runtime(
            parallel=options["parallel"],
            attention=options["attention"],
            compile=options["compiled"],
            micro_rows=options["micro_rows"],
            recompute=options["recompute"],
            log_every=options["log_every"],
            save_every_tokens=options["save_every_tokens"],
            save_every_s=options["save_every_s"],
            max_s=options["max_s"],
        ),
        fresh=options["fresh"],
        workers=workers if workers is not None else int(group.device.type == "cuda"),
        keep_last=options["keep_last"],
        dollars_per_hour=options["dollars_per_hour"],
    )


def _sinks(folder: Path, options: dict[str, Any]) -> list[Any]:
    from speechscale.train.dashboard import Dashboard
    from speechscale.train.writers import open_writers

    return [Dashboard(folder.name), *open_writers(options["writers"], folder, project=options["project"])]


def _summary(record: dict[str, Any], folder: Path) -> str:
    spent = f"{record['tokens_seen']:,} tokens in {record['steps']:,} steps, {record['seconds']:,.0f} s"
    if record.get("probe_seconds"):
        spent += f" and {record['probe_seconds']:,.1f} s of probes"
    if record["interrupted"]:
        return f"{folder}: {record['stopped']} after {spent}; start again with the same command to go on"
    losses = [
        f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items() if key != "mean")
        for name, found in record.get("losses_final", {}).items()
    ]
    for name, found in record.get("held_out", {}).items():
        numbers = (f"{key} {found['mean'][key]:.3f} ± {found['se'][key] or 0:.3f}" for key in ("margin", "accuracy"))
        losses.append(f"held-out pairs {name}: {', '.join(numbers)}")
    ended = f" (ended early: {record['stopped']})" if record["stopped"] else ""
    return "\n  ".join([f"{folder}: {spent}{ended}", *losses, f"model: {folder / 'model'}"])


def _plan(job: TrainJob, options: dict[str, Any]) -> None:
    """Print what the job is and needs."""
    import os

    from speechscale.train.plan import plan_lines
    from speechscale.train.run import prepare

    world = options["world"] or int(os.environ.get("WORLD_SIZE", "1"))
    memory = None if options["memory_gb"] is None else int(options["memory_gb"] * 1e9)
    wanted = {key: options[key] for key in ("device", "parallel", "micro_rows", "recompute", "attention")}
    for line in plan_lines(prepare(job), world=world, memory_bytes=memory, **wanted):
        click.echo(line)


@click.command()
@click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run [runs/train-NAME].")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--gpus-per-node", type=click.IntRange(min=0), default=8, show_default=True, help="0: CPU processes.")
@click.option("--cpus-per-gpu", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--time", "limit", default="24:00:00", show_default=True, help="Wall time of one job.")
@click.option("--warn-s", type=click.IntRange(min=10), default=300, show_default=True, help="Warning before the end.")
@click.option("--partition", help="Partition.")
@click.option("--account", help="Account.")
@click.option("--setup", default="", help="Shell line before the run, e.g. 'source .venv/bin/activate'.")
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
def slurm(config: Path, out: Path | None, **options: Any) -> None:
    """Print an sbatch script that trains CONFIG, saves before the time limit and queues itself again.

    What follows -- goes to `speechscale train`: speechscale train slurm job.toml -- --parallel fsdp
    """
    from speechscale.train.job import load_job
    from speechscale.train.slurm import sbatch_script

    load_job(config)
    click.echo(sbatch_script(config, out or Path("runs") / f"train-{config.stem}", **options), nl=False)
