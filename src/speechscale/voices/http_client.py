"""POST JSON to a server with a key, safely: the client behind speech endpoints and judges.

Enters: an address, JSON bodies. Leaves: the bytes of the answer. The one decision worth knowing: the key comes from an
environment variable and goes into one header only: redirects are refused, plain http leaves the machine only when
allowed, and messages are scrubbed of it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from speechscale.errors import DataError
from speechscale.voices.segments import EngineDown

MAX_WAIT_S = 60.0
"""Longest pause between two tries."""
FIRST_WAIT_S = 0.5
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
REFUSED = frozenset({401, 402, 403, 404, 405})


class ItemRefused(DataError):
    """The server works, but will not do this one item."""


class _Retry(Exception):
    """The server is busy or failing; `wait_s` is what it asks for."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class HttpClient:
    """Posts to one address of a server.

    Args:
        base: the server's address, with or without "/v1". path: of the interface below /v1, e.g. "audio/speech".
        what: how messages call the server. item: what is lost when it refuses one request.
        key_env: environment variable that holds the key; no key is sent where it is not set.
        allow_http: plain http to another machine. max_bytes: the longest answer that is read.
        refused: what a user should look at when the server refuses altogether.

    Raises:
        DataError: an address that is not http(s), or plain http to another machine without `allow_http`.
    """

    def __init__(
        self,
        *,
        base: str,
        path: str,
        what: str,
        item: str,
        accept: str,
        key_env: str,
        allow_http: bool,
        timeout_s: float,
        retries: int,
        max_bytes: int,
        refused: str,
    ) -> None:
        self.host = checked_host(base, allow_http)
        base = base.rstrip("/")
        self.url = f"{base}/{path}" if base.endswith("/v1") else f"{base}/v1/{path}"
        self.what, self.item, self.accept, self.key_env, self.refused = what, item, accept, key_env, refused
        self.timeout_s, self.retries, self.max_bytes = timeout_s, max(0, retries), max_bytes
        handlers: list[Any] = [_NoRedirect()]
        if is_loopback(self.host):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def post(self, body: dict[str, Any]) -> bytes:
        """Ask until an answer comes, waiting longer each time.

        Raises:
            DataError: it does not come. ItemRefused: the server refuses this request.
            EngineDown: the server refuses altogether (key, address, model).
        """
        for attempt in range(self.retries + 1):
            try:
                return self._once(body)
            except _Retry as error:
                if attempt == self.retries:
                    tries = f"{attempt + 1} tries"
                    raise DataError(
                        f"the {self.what} failed after {tries} ({error}); run again later or drop the {self.item}"
                    ) from None
                time.sleep(min(MAX_WAIT_S, max(error.wait_s, FIRST_WAIT_S * 2**attempt)))
        raise AssertionError("unreachable")

    def _once(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": self.accept, "User-Agent": "speechscale"}
        key = self._key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self.url, data=json.dumps(body).encode(), headers=headers, method="POST")
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                return self._read(answer)
        except urllib.error.HTTPError as error:
            with error:
                self._refuse(error, key)
        except (urllib.error.URLError, HTTPException, OSError) as error:
            # str of these never holds headers; the key is scrubbed all the same.
            raise _Retry(_scrubbed(str(error), key)) from None
        raise AssertionError("unreachable")

    def _key(self) -> str:
        """The key, without blanks around it; the error for one that fits no header must not show it."""
        key = os.environ.get(self.key_env, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise EngineDown(
                f"the key in ${self.key_env} holds a line end, or letters beyond ASCII, which no header can carry; "
                "set it again"
            )
        return key

    def _read(self, answer: Any) -> bytes:
        """Read with a deadline and a limit, however slowly or much the server sends."""
        deadline = time.monotonic() + self.timeout_s
        data = bytearray()
        while piece := answer.read1(1 << 16):
            data += piece
            if len(data) > self.max_bytes:
                raise DataError(f"the {self.what} sent more than {self.max_bytes >> 20} MB; give it shorter texts")
            if time.monotonic() > deadline:
                raise _Retry(f"the answer took more than {self.timeout_s:g} s")
        promised = answer.headers.get("Content-Length")
        if promised is not None and promised.isdecimal() and int(promised) != len(data):
            raise _Retry(f"the answer ended after {len(data)} of {promised} bytes")
        return bytes(data)

    def _refuse(self, error: urllib.error.HTTPError, key: str) -> None:
        """Sort an error status: try again, give up on the item, or on the server."""
        try:
            said = _scrubbed(" ".join(error.read(400).decode("utf-8", "replace").split()), key)
        except (HTTPException, OSError):  # the status alone has to do
            said = ""
        why = f"HTTP {error.code}: {said[:200]}" if said else f"HTTP {error.code}"
        if error.code in RETRIED:
            wait = error.headers.get("Retry-After", "")
            raise _Retry(why, float(wait) if wait.replace(".", "", 1).isdecimal() else 0.0)
        if error.code in REFUSED or 300 <= error.code < 400:
            raise EngineDown(f"{self.what} {self.host} refuses ({why}); check {self.refused} in ${self.key_env}")
        raise ItemRefused(f"the {self.what} refuses the text ({why}); correct or drop the {self.item}")


def checked_host(base: str, allow_http: bool) -> str:
    """The host of an address that may be used. Raises DataError."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise DataError(f"endpoint '{base}': {error}; write https://HOST or http://127.0.0.1:PORT") from error
    if parts.scheme not in ("http", "https") or not host:
        raise DataError(f"endpoint '{base}': not an address; write https://HOST or http://127.0.0.1:PORT")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise DataError(
            f"endpoint at {host}: user, password or query do not belong into the address; put the key into the "
            "environment variable"
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise DataError(
            f"endpoint '{base}': plain http would show texts and key to everybody on the way; use https, or allow it "
            "with --allow-http"
        )
    return host


def is_loopback(host: str) -> bool:
    """Whether a host is this machine. Example: "127.0.0.1" -> True"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _scrubbed(text: str, key: str) -> str:
    return text.replace(key, "***") if key else text
