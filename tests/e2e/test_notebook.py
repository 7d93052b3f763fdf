"""Would catch: a notebook that drifted from the API, cells in a wrong order, stored outputs, another model exported."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechscale.study.loading import load_study
from speechscale.study.recipes import run_study

NOTEBOOK = Path(__file__).parents[2] / "examples" / "speak.ipynb"
SMALL: dict[str, Any] = {
    "parts": {"mfcc": {"use_arms": ["textless", "interleaved"]}},
    "arms.interleaved.learning_rates": [1e-2],
    "arms.textless.learning_rates": [1e-2],
    "grid.sizes": ["0.05M"],
    "grid.budgets_flops": [4e9],
    "evals.sets": ["words"],
    "evals.directions": ["ss"],
}
RUNNER = """
import json, sys
from types import SimpleNamespace
sys.modules["IPython"] = None  # a plain Python
with open(sys.argv[1], encoding="utf-8") as file:
    cells = [cell for cell in json.load(file)["cells"] if cell["cell_type"] == "code"]
names = {"__name__": "__main__"}
for cell in cells:
    exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
shown = []
jupyter = SimpleNamespace(Audio=lambda filename: filename, display=shown.append)
sys.modules["IPython"], sys.modules["IPython.display"] = SimpleNamespace(display=jupyter), jupyter
(ears,) = (cell for cell in cells if cell["id"] == "ears")
exec("".join(ears["source"]), names)
names["hear"](names["spoken"], "shown")
prompt = names["asked"]["input_ids"][0].tolist()
facts = {"out": str(names["OUT"]), "run": str(names["run"]), "prompt": prompt, "silent": names["silent"]}
facts |= {"ours": names["ours"], "greedy": names["greedy"], "shown": shown}
with open(sys.argv[2], "w", encoding="utf-8") as file:
    json.dump(facts, file)
"""


def run_cells(book: dict[str, Any], folder: Path, study: Path) -> subprocess.CompletedProcess[str]:
    """Run the code cells of a notebook in a fresh process in `folder`; what they found is in facts.json."""
    (folder / "book.ipynb").write_text(json.dumps(book), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", RUNNER, "book.ipynb", "facts.json"],
        cwd=folder,
        env={**os.environ, "SPEECHSCALE_STUDY": str(study)},
        capture_output=True,
        text=True,
    )


def flaws(book: dict[str, Any]) -> list[str]:
    """What a notebook in the repository must not have."""
    found = []
    if (book.get("nbformat"), book.get("nbformat_minor")) != (4, 5):
        found.append("not nbformat 4.5")
    if book["metadata"] != {"language_info": {"name": "python"}}:
        found.append("metadata of a kernel")
    ids = [cell.get("id", "") for cell in book["cells"]]
    if len(set(ids)) != len(ids) or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", id) for id in ids):
        found.append("ids")
    for cell, id in zip(book["cells"], ids, strict=True):
        fields = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            fields |= {"execution_count", "outputs"}
            if cell.get("outputs"):
                found.append(f"{id}: stored outputs")
            if cell.get("execution_count") is not None:
                found.append(f"{id}: an execution count")
            if len(cell["source"]) > 20:
                found.append(f"{id}: a long cell")
        if set(cell) != fields or cell["metadata"]:
            found.append(f"{id}: fields")
        if cell["cell_type"] not in ("code", "markdown") or not "".join(cell["source"]).strip():
            found.append(f"{id}: neither code nor text")
    return found


def _ran(cell: dict[str, Any]) -> None:
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]


@pytest.fixture(scope="module")
def book() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return made


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The debug study as far as its samples: one run of each of two arms, a vocoder."""
    pytest.importorskip("espeakng_loader", reason="the study speaks its corpus: install the extra 'voices'")
    folder = tmp_path_factory.mktemp("notebook") / "study"
    outcome = run_study(load_study("debug", SMALL), folder, only="samples/mfcc", jobs=1, say=str)
    assert not outcome.failed
    assert not outcome.blocked
    return folder


def test_it_is_stored_clean(book: dict[str, Any]) -> None:
    assert flaws(book) == []
    assert NOTEBOOK.stat().st_size < 20_000
    assert book["cells"][0]["cell_type"] == "markdown"
    said = "".join(line for cell in book["cells"] for line in cell["source"])
    pages = set(re.findall(r"docs/[a-z_]+\.md", said))
    assert "docs/generating.md" in pages
    assert [page for page in sorted(pages) if not (NOTEBOOK.parents[1] / page).is_file()] == []


@pytest.mark.parametrize(
    ("spoil", "flaw"),
    [
        (_ran, "places: stored outputs"),
        (lambda cell: cell.update(execution_count=3), "places: an execution count"),
        (lambda cell: cell["metadata"].update(tags=["x"]), "places: fields"),
        (lambda cell: cell.update(id="model"), "ids"),
    ],
)
def test_a_notebook_that_was_run_or_edited_is_seen(
    book: dict[str, Any], spoil: Callable[[dict[str, Any]], None], flaw: str
) -> None:
    spoiled = copy.deepcopy(book)
    (cell,) = (cell for cell in spoiled["cells"] if cell["id"] == "places")
    spoil(cell)
    assert flaws(spoiled) == [flaw]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs_top_to_bottom(book: dict[str, Any], study: Path, tmp_path: Path) -> None:
    ran = run_cells(book, tmp_path, study)
    assert ran.returncode == 0, ran.stderr
    facts = json.loads((tmp_path / "facts.json").read_text(encoding="utf-8"))
    assert facts["run"] == str(study / "steps" / "run" / "mfcc" / "interleaved-0.05M-4e09-s0")
    out = tmp_path / facts["out"]
    for name in ("text-to-speech", "speech-to-speech", "streamed", "units", "shown"):
        audio, rate_hz = soundfile.read(out / f"{name}.wav")
        assert len(audio) > 0.2 * rate_hz, name
        assert np.sqrt(np.mean(audio**2)) > 1e-3, name
    streamed, _ = soundfile.read(out / "streamed.wav")
    spoken, _ = soundfile.read(out / "speech-to-speech.wav")
    assert np.allclose(streamed, spoken, atol=1e-4)
    assert facts["shown"] == [str(Path(facts["out"]) / "shown.wav")], "where there is IPython, it plays"
    lines = [json.loads(line) for line in (out / "samples" / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == ["p0-0", "p0-1", "p1-0", "p1-1"]
    page = (out / "samples" / "index.html").read_text(encoding="utf-8")
    assert lines[2]["prompt"]["text"] in page
    assert facts["ours"] == _greedy(out / "bundle", facts)


def _greedy(bundle: Path, facts: dict[str, Any]) -> list[int]:
    """What stock transformers says in this process, which never saw the notebook's."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(bundle)
    whole = model.generate(
        torch.tensor([facts["prompt"]]),
        attention_mask=torch.ones(1, len(facts["prompt"]), dtype=torch.long),
        suppress_tokens=facts["silent"],
        do_sample=False,
        temperature=None,
        top_k=None,
        **facts["greedy"],
    )
    new = whole[0, len(facts["prompt"]) :].tolist()
    assert len(new) >= facts["greedy"]["min_new_tokens"]
    return [id for id in new if id != model.generation_config.eos_token_id]


@pytest.mark.slow
def test_cells_in_another_order_fail(book: dict[str, Any], tmp_path: Path) -> None:
    turned = copy.deepcopy(book)
    turned["cells"].sort(key=lambda cell: cell["id"] != "model")  # in front; the others keep their order
    ran = run_cells(turned, tmp_path, tmp_path)
    assert ran.returncode != 0
    assert "name 'STUDY' is not defined" in ran.stderr


@pytest.mark.slow
def test_without_a_study_it_says_which_to_make(book: dict[str, Any], tmp_path: Path) -> None:
    ran = run_cells(book, tmp_path, tmp_path / "none")
    assert ran.returncode != 0
    assert f"{tmp_path / 'none'}: no study with samples; make one" in ran.stderr
