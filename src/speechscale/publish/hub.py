"""Push a folder to a hub, or say exactly what would go.

Enters: a folder with card and checksums, OWNER/NAME. Leaves: a `Push` (what would go where), or the repository. The one
decision worth knowing: nothing is sent unless it was listed and verified a moment before, a new repository is private
unless asked otherwise, and the token is the hub library's own affair (its login, or HF_TOKEN): it is never read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from speechscale import __version__
from speechscale.errors import DataError
from speechscale.publish.bundle import CARD, BundleFile, verify_bundle
from speechscale.report.card_check import Kind, check_repo, require_valid

LOGIN = "log in with `hf auth login`, or put a token with write access into HF_TOKEN"


class Api(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, **options: Any) -> Any: ...

    def repo_info(self, repo_id: str, **options: Any) -> Any: ...

    def upload_folder(self, **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What goes where. public: visibility of a repository that is made for it."""

    folder: Path
    repo: str
    kind: Kind
    public: bool
    files: tuple[BundleFile, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def lines(self) -> list[str]:
        """For people: every file with its bytes and checksum, then where it all goes."""
        wide = max(len(f"{file.bytes:,}") for file in self.files)
        rows = [f"{file.bytes:>{wide},}  {file.sha256}  {file.path}" for file in self.files]
        seen = "public" if self.public else "private"
        return [*rows, f"{len(self.files)} files, {self.bytes:,} bytes -> {self.kind} {self.repo} ({seen})"]


def plan_push(folder: Path, repo: str, *, kind: Kind, public: bool = False) -> Push:
    """Verify a folder and list what a push would send; nothing is sent.

    Raises:
        DataError: checksums that do not hold, no card, a card the hub would refuse or without a license, a name the
            hub does not allow.
    """
    folder = Path(folder)
    check_repo(repo)
    files = verify_bundle(folder)
    card = folder / CARD
    if not card.is_file():
        raise DataError(f"{folder}: no {CARD}; make the folder with speechscale publish")
    text = card.read_text(encoding="utf-8")
    require_valid(text, kind)
    told = RepoCard(text).data.to_dict()
    if not told.get("license"):
        raise DataError(f"{card}: no license, and others may do nothing with it; make the folder again with --license")
    link = str(told.get("license_link") or "")
    if link.startswith("LICENSE") and link not in {file.path for file in files}:
        raise DataError(f"{card}: license_link '{link}' is not in the folder; give its address (--license-link)")
    return Push(folder=folder, repo=repo, kind=kind, public=public, files=tuple(files))


def push(wanted: Push, api: Api | None = None) -> str:
    """Send it; return where it lies.

    Raises:
        DataError: not logged in, no network, refused by the hub, the folder changed since it was listed, or the
            repository is public although a private one was asked for.
    """
    hub: Any = api if api is not None else HfApi(library_name="speechscale", library_version=__version__)
    if verify_bundle(wanted.folder) != list(wanted.files):
        raise DataError(f"{wanted.folder} changed since it was listed; look at the list again")
    try:
        hub.create_repo(wanted.repo, repo_type=wanted.kind, private=not wanted.public, exist_ok=True)
        if not wanted.public and not hub.repo_info(wanted.repo, repo_type=wanted.kind).private:
            raise DataError(
                f"repository {wanted.repo} exists and is public; say --public, or push to another one; nothing was sent"
            )
        done = hub.upload_folder(
            repo_id=wanted.repo,
            repo_type=wanted.kind,
            folder_path=str(wanted.folder),
            commit_message=f"speechscale {__version__}: {len(wanted.files)} files",
        )
    except LocalTokenNotFoundError:
        raise DataError(f"push to {wanted.repo}: not logged in; {LOGIN}") from None
    except HfHubHTTPError as error:
        code = getattr(getattr(error, "response", None), "status_code", None)
        remedy = LOGIN if code in (401, 403) else "see the hub's answer"
        raise DataError(f"push to {wanted.repo}: refused by the hub ({_first_line(error)}); {remedy}") from None
    except UnicodeEncodeError:  # of the token, in a header; it must not be shown
        raise DataError(f"push to {wanted.repo}: the token holds letters that none has; {LOGIN}") from None
    except Exception as error:  # of the http library, whichever the hub's client has
        known = isinstance(error, HFValidationError | OSError) or type(error).__module__.startswith(
            ("http", "requests")
        )
        if not known:
            raise
        raise DataError(f"push to {wanted.repo}: {_first_line(error)}; check name and network") from None
    return str(getattr(done, "commit_url", "") or f"{wanted.kind} {wanted.repo}")


def _first_line(error: Exception) -> str:
    """What went wrong, without a token that the http library found no good header."""
    told = str(error).strip().partition("\n")[0]
    return re.sub(r"Bearer\s.*|hf_[A-Za-z0-9]+", "(token)", told)
