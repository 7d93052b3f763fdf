"""Catches a push of what was not listed, altered, unlicensed or meant to stay private, and a token that is told."""

from __future__ import annotations

import inspect
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from speechscale.errors import DataError
from speechscale.publish.bundle import SUMS, verify_bundle, write_sums
from speechscale.publish.hub import plan_push, push
from tests.local_server import serving

CARD = "---\nlicense: mit\n---\n# A model\n"


class FakeHub:
    """A hub that remembers what it was told."""

    def __init__(self, private: bool = True, error: Exception | None = None) -> None:
        self.private, self.error, self.calls = private, error, []

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create", repo_id, options))
        if self.error is not None:
            raise self.error

    def repo_info(self, repo_id: str, **options: Any) -> Any:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **options: Any) -> Any:
        self.calls.append(("upload", options["repo_id"], options))
        return SimpleNamespace(commit_url=f"https://hub/{options['repo_id']}/commit/1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "samples").mkdir(parents=True)
    (made / "README.md").write_text(CARD)
    (made / "model.safetensors").write_bytes(b"weights")
    (made / "samples/a.wav").write_bytes(b"sound")
    write_sums(made)
    return made


def test_checksums_are_those_of_sha256sum(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [file.path for file in verify_bundle(folder)] == [
        "README.md",
        "model.safetensors",
        "samples/a.wav",
        "SHA256SUMS",
    ]


def test_every_difference_is_found(folder: Path, tmp_path: Path) -> None:
    def wrong(match: str) -> None:
        with pytest.raises(DataError, match=match):
            verify_bundle(folder)

    (folder / "model.safetensors").write_bytes(b"w3ights")
    wrong("'model.safetensors' was altered")
    (folder / "model.safetensors").unlink()
    wrong("'model.safetensors' is missing")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "evil.py").write_text("")
    wrong(r"'evil\.py' is not listed")
    (folder / "evil.py").unlink()
    (folder / "link").symlink_to(tmp_path)
    wrong("is a link")
    (folder / "link").unlink()
    verify_bundle(folder)
    for line in ("x", f"{'0' * 64}  ../secret", f"{'0' * 64}  /etc/passwd", "\ud800"):
        (folder / SUMS).write_bytes(line.encode(errors="surrogatepass"))
        wrong("not a checksum|cannot be read")
    (folder / SUMS).unlink()
    wrong("cannot be read")


def test_odd_files_are_refused_and_odd_names_are_listed(folder: Path) -> None:
    (folder / "a\u2028b c.txt").write_text("x")
    write_sums(folder)
    assert len(verify_bundle(folder)) == 5, "a break of unicode is part of a name"
    for name in ("a\rb", "a\nb", "a\\b", b"a\xff".decode("utf-8", "surrogateescape")):
        (folder / name).write_text("x")
        with pytest.raises(DataError, match="a name with a line break"):
            write_sums(folder)
        (folder / name).unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        verify_bundle(folder)


def test_a_push_sends_what_was_listed_to_a_private_repository(folder: Path) -> None:
    plan = plan_push(folder, "me/tiny", kind="model")
    lines = plan.lines()
    assert lines[-1] == f"4 files, {plan.bytes} bytes -> model me/tiny (private)"
    assert lines[0].endswith("README.md")
    assert lines[0].split()[0] == str(len(CARD))
    hub = FakeHub()
    assert push(plan, hub) == "https://hub/me/tiny/commit/1"
    (created, uploaded) = hub.calls
    assert created == ("create", "me/tiny", {"repo_type": "model", "private": True, "exist_ok": True})
    assert uploaded[2]["folder_path"] == str(folder)
    assert uploaded[2]["repo_type"] == "model"


def test_a_public_repository_is_never_written_to_by_accident(folder: Path) -> None:
    hub = FakeHub(private=False)
    with pytest.raises(DataError, match=r"exists and is public.*nothing was sent"):
        push(plan_push(folder, "me/tiny", kind="model"), hub)
    assert [call[0] for call in hub.calls] == ["create"]
    push(plan_push(folder, "me/tiny", kind="model", public=True), hub)
    assert hub.calls[-1][0] == "upload"


def test_what_must_not_go_is_not_even_listed(folder: Path) -> None:
    with pytest.raises(DataError, match="OWNER/NAME"):
        plan_push(folder, "tiny", kind="model")
    plan = plan_push(folder, "me/tiny", kind="model")
    (folder / "README.md").write_text(CARD + "more\n")
    with pytest.raises(DataError, match=r"'README\.md' was altered"):
        plan_push(folder, "me/tiny", kind="model")
    hub = FakeHub()
    write_sums(folder)
    with pytest.raises(DataError, match="changed since it was listed"):
        push(plan, hub)
    assert hub.calls == []
    for card, problem in {
        "---\nlanguage: en\n---\n# A\n": "no license",
        "---\nlicense:\n---\n# A\n": "no license",
        "---\nlicense: mine\n---\n# A\n": "license: 'mine'",
        "---\nlicense: other\nlicense_name: x\nlicense_link: LICENSE\n---\n# A\n": "'LICENSE' is not in the folder",
    }.items():
        (folder / "README.md").write_text(card)
        write_sums(folder)
        with pytest.raises(DataError, match=problem):
            plan_push(folder, "me/tiny", kind="model")
    (folder / "README.md").unlink()
    write_sums(folder)
    with pytest.raises(DataError, match=r"no README\.md"):
        plan_push(folder, "me/tiny", kind="model")


def test_refusals_of_the_hub_are_told_without_the_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    plan = plan_push(folder, "me/tiny", kind="model")
    response = requests.Response()
    response.status_code = 403
    for error, match in (
        (LocalTokenNotFoundError("no"), "not logged in; log in with `hf auth login`"),
        (HfHubHTTPError("403 Forbidden", response=response), "refused by the hub .*log in"),
        (ConnectionError("offline"), "check name and network"),
        (ConnectionError("Illegal header value b'Bearer hf_secretsecret x'"), r"\(token\)"),
        (UnicodeEncodeError("ascii", "Bearer hf_secretsecret\xe9", 22, 23, "ordinal not in range"), "letters"),
    ):
        with pytest.raises(DataError, match=match) as caught:
            push(plan, FakeHub(error=error))
        assert "hf_secret" not in str(caught.value)


def test_the_real_client_takes_what_it_is_given() -> None:
    given = {
        "create_repo": {"repo_type": "model", "private": True, "exist_ok": True},
        "repo_info": {"repo_type": "model"},
        "upload_folder": {"repo_type": "model", "folder_path": "x", "commit_message": "y"},
    }
    for name, options in given.items():
        inspect.signature(getattr(HfApi, name)).bind(None, repo_id="me/tiny", **options)


def test_the_real_client_is_refused_by_a_server_and_finds_none(folder: Path) -> None:
    plan = plan_push(folder, "me/tiny", kind="model")
    answer = (401, {"Content-Type": "application/json"}, b'{"error": "Invalid token"}')
    refused = pytest.raises(DataError, match=r"refused by the hub.*hf auth login")
    with serving(lambda body, number: answer) as (address, server), refused as caught:
        push(plan, HfApi(endpoint=address, token="hf_secretsecret"))
    assert [request.path for request in server.requests] == ["/api/repos/create"]
    assert "private" in (server.requests[0].body.get("visibility"), *server.requests[0].body), "by either name"
    assert server.requests[0].body.get("private", True) is True
    assert "hf_secret" not in str(caught.value)
    with pytest.raises(DataError, match="check name and network"):
        push(plan, HfApi(endpoint=address, token="hf_secretsecret"))
