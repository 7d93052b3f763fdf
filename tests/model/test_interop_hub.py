"""Catches a hub name that fetches what can run code, another commit than asked, or fails without saying what to do."""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from click.testing import CliRunner

from speechscale.cli import cli
from speechscale.errors import DataError
from speechscale.files import read_json
from speechscale.model.interop import Wanted, import_model
from speechscale.model.interop_hub import UNWANTED, WANTED, download_command
from speechscale.model.slm import load_model
from tests.model.peers import slamkit, small

COMMIT = "0123456789abcdef0123456789abcdef01234567"
UNITS = 20


def cached(home: Path, model: Any) -> Path:
    """A checkpoint in the hub's local cache: blobs, links to them under the commit, and the branch that names it."""
    place = home / "hub" / "models--owner--name"
    snapshot = place / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    slamkit(model, snapshot)
    (place / "blobs").mkdir()
    for file in snapshot.iterdir():
        blob = place / "blobs" / file.name
        file.rename(blob)
        file.symlink_to(os.path.relpath(blob, snapshot))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    return snapshot


FRESH = """
import json, sys
from click.testing import CliRunner
from speechscale.cli import cli
done = [CliRunner().invoke(cli, ["model", "import", *arguments]) for arguments in json.loads(sys.argv[1])]
print(json.dumps([[one.exit_code, one.output] for one in done]))
"""


def offline(home: Path, *calls: list[object]) -> list[tuple[int, str]]:
    """Exit code and output of imports in one fresh process without network."""
    given = json.dumps([list(map(str, arguments)) for arguments in calls])
    settings = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", FRESH, given]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    assert done.returncode == 0, done.stderr
    return [(code, output) for code, output in json.loads(done.stdout)]


def test_the_local_cache_serves_offline(tmp_path: Path) -> None:
    """The hub's own client, in a fresh process: the cache is found, and the commit is said and kept."""
    model = small(UNITS + 2)
    cached(tmp_path / "home", model)
    found, other, absent = offline(
        tmp_path / "home",
        ["owner/name", tmp_path / "out", "--units", UNITS],
        ["owner/name", tmp_path / "other", "--revision", "v2"],
        ["owner/other", tmp_path / "other"],
    )
    assert found[0] == 0, found[1]
    assert f"owner/name: commit {COMMIT}" in found[1]
    record = read_json(tmp_path / "out" / "import.json", "record", "")
    assert record["source"] == {"name": "owner/name", "commit": COMMIT}
    with torch.no_grad():
        want = model(torch.tensor([[1, 5, 9]])).logits[..., 1:]
        assert torch.equal(load_model(tmp_path / "out").eval()(torch.tensor([[0, 4, 8]])).logits, want)
    for code, output in (other, absent):
        assert code == 2
        assert output.startswith("error: checkpoint 'owner/")
        assert len(output.strip().splitlines()) == 1
    assert "hf download owner/name --revision v2 --local-dir name" in other[1]
    assert "hf download owner/other --local-dir other" in absent[1]


def test_only_files_that_cannot_run_code_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = slamkit(small(UNITS + 2), tmp_path / COMMIT)
    asked: dict[str, Any] = {}

    def download(**settings: Any) -> str:
        asked.update(settings)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    arguments = ["model", "import", "owner/name", str(tmp_path / "out"), "--revision", "v1", "--units", str(UNITS)]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    assert f"commit {COMMIT}" in done.output
    assert (asked["repo_id"], asked["revision"]) == ("owner/name", "v1")

    def fetched(name: str) -> bool:
        wanted, unwanted = asked["allow_patterns"], asked["ignore_patterns"]
        return any(fnmatch.fnmatch(name, p) for p in wanted) and not any(fnmatch.fnmatch(name, p) for p in unwanted)

    assert all(map(fetched, ["config.json", "model-00001-of-00002.safetensors", "tokenizer.model", "merges.txt"]))
    unsafe = ["pytorch_model.bin", "model.pt", "modeling_x.py", "consolidated.00.safetensors", "old/model.safetensors"]
    assert not any(map(fetched, unsafe))


def test_a_repository_of_pickles_is_refused_with_the_safe_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights were not fetched, so the folder does not show them."""
    (tmp_path / COMMIT).mkdir()
    (tmp_path / COMMIT / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda **_: str(tmp_path / COMMIT))
    with pytest.raises(DataError, match=r"no safetensors at its top.*weights_only=True"):
        import_model("owner/name", tmp_path / "out")


@pytest.mark.parametrize("error", [OSError("no route"), huggingface_hub.errors.LocalEntryNotFoundError("offline")])
def test_a_hub_that_does_not_answer_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(**_: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DataError, match=r"the hub did not give it .*; check the name, or run `hf download owner/name"):
        import_model("owner/name", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command_fetches_what_we_would() -> None:
    shown = download_command("owner/name", "v1")
    assert shown.startswith("hf download owner/name --revision v1 --local-dir name ")
    assert all(f'--include "{pattern}"' in shown for pattern in WANTED)
    assert all(f'--exclude "{pattern}"' in shown for pattern in UNWANTED)


@pytest.mark.parametrize("source", ["no/such/folder", "name", "./owner/name", "owner/name.json", "../x"])
def test_what_is_no_name_never_reaches_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    def never(**_: Any) -> str:
        raise AssertionError("asked the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", never)
    with pytest.raises(DataError, match="no such folder"):
        import_model(source, tmp_path / "out")


def test_a_folder_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    slamkit(small(UNITS + 2), tmp_path / "owner" / "name")
    with pytest.raises(DataError, match="--revision belongs to a name on the hub"):
        import_model("owner/name", tmp_path / "out", revision="v1")
    assert import_model("owner/name", tmp_path / "out", wanted=Wanted(units=UNITS)).commit is None
