"""The command line: verbs that each call one library function; heavy imports happen inside a verb."""

from __future__ import annotations

import sys

import click

from speechscale import __version__


class Verbs(click.Group):
    """A group whose user errors are one message and exit code 2, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (ValueError, ImportError) as error:
            if type(error).__module__ != "speechscale.errors":
                raise
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("stopped; what was finished is kept, the same command goes on from there", err=True)
            ctx.exit(130)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="speechscale")
def cli() -> None:
    """Scaling studies of interleaved speech-text language models, from audio to laws with error bars.

    Begin with: speechscale study run quick
    """


def main() -> None:
    """Entry point of the `speechscale` command."""
    from speechscale.cli.speak import speak
    from speechscale.cli.study import study

    cli.add_command(study)
    cli.add_command(speak)
    sys.exit(cli(standalone_mode=True))
