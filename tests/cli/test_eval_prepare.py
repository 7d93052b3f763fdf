"""Would catch: a verb that does not do what its options say, a wrong exit code, a closing line that hides a drop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.evals.benchmarks.benchmark import open_benchmark
from speechscale.evals.tasks import TASKS
from speechscale.speech.units import fit_tokenizer
from tests.corpus.sources import write_lines


def speechscale(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["eval", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def blimp(root: Path) -> Path:
    rows = [
        {
            "sentence_good": f"The {animal} runs.",
            "sentence_bad": f"The {animal} run.",
            "UID": "agreement",
            "pairID": str(number),
            "linguistics_term": "agreement",
        }
        for number, animal in enumerate(("cat", "dog", "cow"))
    ]
    rows.append({**rows[0], "pairID": "3", "sentence_bad": rows[0]["sentence_good"]})
    return write_lines(root / "blimp/agreement.jsonl", rows).parent


def test_list_shows_every_task_and_its_options() -> None:
    shown = speechscale("list")
    assert shown.exit_code == 0
    for name, task in TASKS.items():
        assert name in shown.output
        assert task.about in shown.output
    one = speechscale("list", "sblimp").output
    assert "--option split=..." in one
    assert "swuggy" not in one
    everything = json.loads(speechscale("list", "--json").output)
    assert everything["sblimp"]["chance"] == 0.5
    assert everything["sblimp"]["layout"] == TASKS["sblimp"].example_layout
    assert set(everything) == set(TASKS)
    unknown = speechscale("list", "sblmp")
    assert unknown.exit_code == 2
    assert "did you mean 'sblimp'" in unknown.output


def test_texts_are_spoken_encoded_and_summed_up(tmp_path: Path) -> None:
    tokenizer, out = tmp_path / "tokenizer", tmp_path / "out"
    noise = [0.1 * np.random.default_rng(i).standard_normal(16_000).astype(np.float32) for i in range(2)]
    fit_tokenizer(noise, encoder="mfcc", clusters=4, seed=0).save(tokenizer)
    command = ["prepare", "blimp", blimp(tmp_path), out, "--voice", "us-f2", "--voice", "gb-m3", "--each-voice"]
    done = speechscale(*command, "--units", tokenizer)
    assert done.exit_code == 0, done.output
    made = open_benchmark(out)
    assert f"6 items kept, 1 dropped, 0.00 h in 12 recordings; sha256 {made.sha256[:16]}" in done.output
    assert "blimp: 6 items in 3 pairs, 2 speakers, 1 phenomena" in done.output
    assert "1 dropped: give two that differ" in done.output
    assert f"next: speechscale eval run MODEL {out} --out RESULTS --tokenizer {tokenizer}" in done.output
    assert len(made.units(tokenizer)) == 12
    assert speechscale(*command, "--units", tokenizer).output.splitlines()[-1] == done.output.splitlines()[-1]
    other = speechscale(*command, "--seed", 1)
    assert other.exit_code == 2
    assert "seed: 0 -> 1" in other.output


def test_messages_name_what_is_allowed(tmp_path: Path) -> None:
    source, out = blimp(tmp_path), tmp_path / "out"
    for more, message in (
        (("--option", "x=1"), "task 'blimp': no option 'x'; it has: none"),
        (("--option", "x"), "'x' is not KEY=VALUE"),
        (("--voice", "us-f2", "--voice-option", "sped=2"), "voice option 'sped' is not known; did you mean 'speed'"),
        (("--voice", "us-f2", "--voice-option", "timeout_s=long"), "option timeout_s = 'long': a number is needed"),
        (("--voice", "us-f2", "--voice-option", "concurrency=1.5"), "'1.5': a whole number is needed"),
        (("--voice", "us-f2", "--voice-option", "allow_http=1"), "allow_http = '1': true or false is needed"),
        (("--voice", "nobody"), "no espeak voice 'nobody'"),
        (("--pause", "-1"), "pause_s = -1.0; give seconds from 0 to 60"),
    ):
        result = speechscale("prepare", "blimp", source, out, *more)
        assert result.exit_code == 2
        assert message in result.output
    assert "gold.csv" in speechscale("prepare", "sblimp", source, out).output
    assert not (out / "benchmark.json").exists()
