"""`speechscale eval generate MODEL`: let a model speak, and measure what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=PATH)
@click.option("--prompts", type=PATH, required=True, help="A corpus, a folder of audio, or JSON lines {id, text}.")
@click.option("--out", type=PATH, required=True, help="Folder of samples, audio and results.")
@click.option("--tokenizer", type=PATH, help="Speech tokenizer; a study's run knows its own.")
@click.option("--vocoder", type=PATH, help="Vocoder; a study's run knows its own. Without one: metrics on units.")
@click.option("--voice", help="Voice of the vocoder [its first].")
@click.option("--direction", type=click.Choice(["ss", "st", "ts"]), default="ss", show_default=True)
@click.option("--count", type=click.IntRange(min=1), help="Prompts, drawn with --seed [all].")
@click.option("--split", help="Of a corpus [all].")
@click.option("--prompt-s", type=float, default=3.0, show_default=True, help="Seconds of each recording to start from.")
@click.option(
    "--cut",
    type=click.Choice(["seconds", "word"]),
    default="seconds",
    show_default=True,
    help="Where to cut: at --prompt-s, or at the nearest end of a word (a corpus with word times).",
)
@click.option("--temperature", type=click.FloatRange(min=0), default=0.8, show_default=True, help="0: the likeliest.")
@click.option("--top-k", type=click.IntRange(min=0), default=25, show_default=True, help="0: no limit.")
@click.option("--top-p", type=click.FloatRange(min=0, max=1, min_open=True), help="[no limit]")
@click.option("--max-new", type=click.IntRange(min=1), default=150, show_default=True, help="New tokens at most.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of draw, samples, intervals.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Prompts at once.")
@click.option("--asr", default="", help="pocketsphinx, or a transformers recognizer (folder or name). [no texts]")
@click.option("--asr-texts", type=PATH, help="Sentences that pocketsphinx is to know, one per line [the corpus' own].")
@click.option("--language", help="Of the speech, told to the recognizer. [en for error rates]")
@click.option("--lm", default="", help="Language model for GenPPL: a TextLM of ours, or a transformers folder or name.")
@click.option(
    "--lm-start",
    type=click.Choice(["auto", "none"]),
    default="auto",
    show_default=True,
    help="Open each text with the language model's start token, or with nothing.",
)
@click.option(
    "--span",
    type=click.Choice(["whole", "continuation", "alone"]),
    default="whole",
    show_default=True,
    help="What is measured: prompt and continuation; the continuation behind its prompt; the continuation alone.",
)
@click.option("--auto-bleu-n", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--auto-bleu-mean",
    type=click.Choice(["single", "geometric", "arithmetic"]),
    default="single",
    show_default=True,
    help="n alone, or the mean over 1..n.",
)
@click.option("--judge", default="", metavar="URL", help="Server with OpenAI's chat interface; it grades from 1 to 5.")
@click.option("--judge-model", default="", help="Model of that server.")
@click.option("--judge-template", type=PATH, help="Text with {prompt} and {continuation} [ours].")
@click.option("--judge-max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="Of an answer.")
@click.option("--judge-prices", nargs=2, type=float, metavar="IN OUT", help="Per million prompt and answer tokens.")
@click.option("--key-env", default="SPEECHSCALE_JUDGE_KEY", show_default=True, help="Variable that holds the key.")
@click.option("--allow-http", is_flag=True, help="Let plain http leave this machine.")
@click.option("--resynthesis", is_flag=True, help="Also word error rates of the vocoder (a corpus with texts).")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--models", multiple=True, type=PATH, help="Folder of pretrained encoders; before the hub.")
def generate(
    model: Path, prompts: Path, out: Path, tokenizer: Path | None, vocoder: Path | None, **options: Any
) -> None:
    """Let MODEL (a study's run, or a folder with model and vocabulary.json) go on from prompts, and measure it.

    The same command goes on after an interruption; with another --asr, --lm or --judge it measures the same samples.
    """
    from speechscale.evals.generation.samples import Sampling
    from speechscale.progress import ProgressLine
    from speechscale.study.generating import Asked, run_generation
    from speechscale.study.located import locate

    sampling = Sampling(
        **{name: options[name] for name in ("direction", "prompt_s", "cut", "max_new", "seed", "batch")},
        temperature=options["temperature"],
        top_k=options["top_k"] or None,
        top_p=options["top_p"],
    )
    names = (
        "count",
        "split",
        "voice",
        "asr",
        "asr_texts",
        "language",
        "span",
        "lm",
        "lm_start",
        "judge_model",
        "judge_template",
        "judge_max_tokens",
    )
    asked = Asked(
        sampling=sampling,
        **{name: options[name] for name in (*names, "key_env", "allow_http", "resynthesis", "device", "models")},
        order=options["auto_bleu_n"],
        orders=options["auto_bleu_mean"],
        judge_url=options["judge"],
        prices=options["judge_prices"],
    )
    located = locate(model, tokenizer=tokenizer, vocoder=vocoder)
    content = run_generation(located, prompts, out, asked, watch_of=ProgressLine)
    show(content, out)


def show(content: dict[str, Any], out: Path) -> None:
    """Print each metric with its interval, and where the rest is."""
    for name, found in content["metrics"].items():
        for key, value in [("", found), *found.items()]:
            if isinstance(value, dict) and {"estimate", "low", "n"} <= value.keys():
                click.echo(f"{f'{name} {key}'.strip():<44} {number(value)}")
    for name, found in content["metrics"].items():
        left = found.get("empty_because") or found.get("left_out") or found.get("without_grade")
        if left:
            click.echo(f"{name}: left out or empty: " + "; ".join(f"{count} {why}" for why, count in left.items()))
    if (lm := content["metrics"].get("perplexity")) and lm["unknown_tokens"]:
        click.echo(f"perplexity: {lm['unknown_tokens']} of {lm['tokens']} tokens stand for words the LM does not know")
    if judge := content["metrics"].get("judge"):
        cost = "" if judge["cost"] is None else f", cost {judge['cost']:.4g}"
        click.echo(f"judge: {judge['prompt_tokens']} + {judge['completion_tokens']} tokens in all{cost}")
    counts = content["counts"]
    dropped = f"; {counts['dropped']} dropped, skips.jsonl says why" if counts["dropped"] else ""
    click.echo(
        f"{out}: {counts['samples']} of {counts['prompts']} prompts, {counts['ended_by_themselves']} ended by "
        f"themselves{dropped}; results.json (stamped), samples.jsonl, audio/"
    )


def number(value: dict[str, Any]) -> str:
    """Example: 0.125 [0.1, 0.15]  n 40"""
    if value["estimate"] is None:
        return f"-  n {value['n']}"
    bounds = "" if value["low"] is None else f" [{value['low']:.4g}, {value['high']:.4g}]"
    return f"{value['estimate']:.4g}{bounds}  n {value['n']}"
