"""The command line: verbs that each call one library function; heavy imports happen inside a verb."""

from __future__ import annotations

import importlib
import sys

import click

from speechscale import __version__

COMMANDS = {
    "study": "study:study",
    "fit": "fit:fit",
    "speak": "speak:speak",
    "generate": "generate:generate",
    "plan": "plan:plan",
    "compare": "compare:compare",
    "power": "power:power",
    "check": "check:check",
    "corpus": {
        "import": "corpus_import:import_corpus",
        "validate": "corpus_check:validate",
        "stats": "corpus_check:stats",
        "split": "corpus_check:split",
        "speak": "corpus_speak:speak_texts",
    },
    "align": "align:align",
    "train": {"run": "train:run", "plot": "train_plot:plot", "slurm": "train:slurm"},
    "eval": {
        "list": "eval_prepare:list_tasks",
        "prepare": "eval_prepare:prepare",
        "run": "eval_run:run",
        "compare": "eval_compare:compare",
        "table": "eval_compare:table",
        "export": "eval_text:export",
        "retention": "eval_text:retention",
        "generate": "eval_generate:generate",
        "lens": "eval_lens:lens",
        "abx": "eval_abx:abx",
    },
    "units": {
        "fit": "units:fit",
        "encode": "units:encode",
        "report": "units_report:report",
        "convert": "units_convert:convert",
        "import-kmeans": "units_convert:import_kmeans",
    },
    "publish": "publish:publish",
    "model": {"import": "model_import:import_model", "export": "model:export_model"},
    "tokens": {
        "build": "tokens_build:build",
        "show": "tokens_show:show",
        "play": "tokens_show:play",
        "stats": "tokens_stats:stats",
        "subwords": "tokens_subwords:subwords",
        "pack": "tokens_pack:pack",
        "slamkit": "tokens_pack:slamkit",
        "verify": "tokens_build:verify",
    },
}
"""Verb -> module:command below speechscale.cli, or a group of such."""
USUAL = {"train": "run"}
"""The verb of a group that is meant where none is named."""
GROUP_HELP = {
    "corpus": "Corpora: import, check, split, or speak one from texts.",
    "units": "Speech units: fit a tokenizer, encode a corpus, judge and convert units.",
    "train": "Train: `speechscale train CONFIG` is `speechscale train run CONFIG`; plot runs; write Slurm scripts.",
    "eval": "Evaluate: prepare benchmarks, score models, compare them; text retention, generation, analysis.",
    "model": "Models: checkpoints of others into stock folders with our vocabulary, and back to slamkit.",
    "tokens": "Token stores: build them from units and texts, look into them, pack them into rows.",
}


class Verbs(click.Group):
    """A group that loads a verb when it is called; user errors are one message and exit code 2, without a traceback."""

    def __init__(self, name: str, table: dict[str, object], usual: str | None = None, **settings: object) -> None:
        super().__init__(name, **settings)  # type: ignore[arg-type]
        self.table, self.usual = table, usual

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.usual is not None and args and args[0] not in self.table and args[0] not in ("-h", "--help"):
            args = [self.usual, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.table.get(cmd_name)
        if isinstance(entry, dict):
            return Verbs(cmd_name, entry, help=GROUP_HELP[cmd_name], usual=USUAL.get(cmd_name))
        if entry is None:
            return None
        module, _, attribute = str(entry).partition(":")
        command: click.Command = getattr(importlib.import_module(f"speechscale.cli.{module}"), attribute)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ValueError, ImportError) as error:
            if type(error).__module__ != "speechscale.errors":
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except OSError as error:
            if error.filename is None:
                raise
            click.echo(f"error: {error.filename}: {error.strerror}; free it or choose another path", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("stopped; what was finished is kept, the same command goes on from there", err=True)
            ctx.exit(130)


def _root() -> Verbs:
    group = Verbs(
        "speechscale",
        dict(COMMANDS),
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Scaling studies of interleaved speech-text language models, from audio to laws with error bars.\n\n"
        "Begin with: speechscale study run quick",
    )
    return click.version_option(__version__, prog_name="speechscale")(group)


cli = _root()


def main() -> None:
    """Entry point of the `speechscale` command."""
    sys.exit(cli(standalone_mode=True))
