"""Checksums of a folder that travels.

Enters: a folder. Leaves: its SHA256SUMS (as `sha256sum` writes it), or every file held to it. The one decision worth
knowing: the list is complete both ways. A file that is not in it is as wrong as one that differs, so nothing travels
that nobody looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from speechscale.errors import DataError
from speechscale.files import complete_file

SUMS = "SHA256SUMS"
CARD = "README.md"
AGAIN = "make the folder again"


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file. path: below the folder, with slashes."""

    path: str
    bytes: int
    sha256: str


def write_sums(folder: Path) -> list[BundleFile]:
    """Hash every file below a folder and write the list.

    Raises:
        DataError: a link, or a name that a list cannot hold.
    """
    files = list(hashed(folder))
    with complete_file(folder / SUMS) as draft:
        draft.write_text("".join(f"{file.sha256}  {file.path}\n" for file in files), encoding="utf-8")
    return files


def hashed(folder: Path) -> Iterator[BundleFile]:
    """Files below a folder in the order of their names, without the list itself. Raises DataError as `write_sums`."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise DataError(f"'{path}' is a link; give the file itself")
        if path.is_dir() or name == SUMS:
            continue
        if not path.is_file():
            raise DataError(f"'{path}' is neither a file nor a folder; take it away")
        if set(name) & set("\n\r\\") or not is_text(name):
            raise DataError(f"{name!r} in {folder}: a name with a line break, a backslash or broken text; rename it")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield BundleFile(path=name, bytes=path.stat().st_size, sha256=digest)


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8; names from a disk or a shell may hold bytes that cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def verify_bundle(folder: Path) -> list[BundleFile]:
    """Read every file again and hold it to SHA256SUMS; the list itself comes last.

    Raises:
        DataError: no list, a line that is none, a file that is missing, altered or not listed, a link.
    """
    folder = Path(folder)
    listed = _read(folder / SUMS)
    found = {file.path: file for file in hashed(folder)}
    problems = [f"'{name}' is missing" for name in sorted(listed.keys() - found.keys())]
    problems += [f"'{name}' is not listed" for name in sorted(found.keys() - listed.keys())]
    problems += [
        f"'{name}' was altered" for name in sorted(listed.keys() & found.keys()) if listed[name] != found[name].sha256
    ]
    if problems:
        more = f" ({len(problems)} such)" if len(problems) > 1 else ""
        raise DataError(f"{folder}: {problems[0]}{more}, by {SUMS}; {AGAIN}")
    content = (folder / SUMS).read_bytes()
    own = BundleFile(path=SUMS, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    return [*found.values(), own]


def _read(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # names may hold other breaks
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {AGAIN}") from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        digest, blank, name = line[:64], line[64:66], line[66:]
        parts = PurePosixPath(name).parts
        good = len(digest) == 64 and set(digest) <= set("0123456789abcdef") and blank in ("  ", " *")
        if not good or not name or name.startswith("/") or ".." in parts or name in listed:
            raise DataError(f"{path}:{number}: not a checksum and a path below the folder; {AGAIN}")
        listed[name] = digest
    return listed
