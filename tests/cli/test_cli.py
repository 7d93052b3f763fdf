"""Would catch: a heavy import at start-up, a traceback where a message belongs, a README command that is gone."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechscale.cli import COMMANDS, USUAL

ROOT = Path(__file__).resolve().parents[2]


def speechscale(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "speechscale", *arguments], capture_output=True, text=True)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; sys.argv = ['speechscale', '--help']; from speechscale.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'transformers', 'pandas', 'plotly', 'pydantic', 'pyarrow', 'numpy'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    began = time.process_time()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "study" in result.stdout
    assert "speak" in result.stdout
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "show", "quikc"], "did you mean 'quick'"),
        (["study", "show", "quick", "--set", "train.contxt=3"], "did you mean 'context'"),
        (["study", "run", "sims"], "lists sizes for planning only"),
        (["study", "clean", "quick", "--out", "nowhere", "--yes"], "is not the folder of a study"),
        (["speak", "nowhere", "--text", "a"], "no such folder"),
        (["speak", "nowhere"], "exactly one of --prompt"),
    ],
)
def test_mistakes_get_one_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    result = speechscale(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    result = speechscale("study", "run", "debug", "--out", str(tmp_path))
    assert result.returncode == 2
    assert "choose another --out" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_only_an_unknown_step_lists_the_steps(tmp_path: Path) -> None:
    result = speechscale("study", "run", "debug", "--out", str(tmp_path / "out"), "--only", "corpsu")
    assert result.returncode == 2
    assert "no step 'corpsu'; steps: corpus, item-units" in result.stderr
    assert not (tmp_path / "out").exists()


def test_every_readme_command_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^ {4}speechscale (.+?)(?: {2,}#.*)?$", text, flags=re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command.partition(" -- ")[0])  # what follows is for another command
        verbs, table = words[:1], COMMANDS[words[0]]
        if words[0] == "study" or (isinstance(table, dict) and words[1] in table):
            verbs = words[:2]
        elif isinstance(table, dict):
            verbs = [words[0], USUAL[words[0]]]
        result = speechscale(*verbs, "--help")
        assert result.returncode == 0, command
        for option in (word for word in words if word.startswith("--")):
            assert option in result.stdout, f"{command}: {option}"


def test_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(targets):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
