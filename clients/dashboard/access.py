"""Who may look: the token, and the checks against other sites in the same browser.

Two attacks come from a page that the user has open elsewhere. DNS rebinding makes that page's
own name point here: so a request is only answered under a name that is known, or an address.
Cross-site requests open a websocket or post a command to here, which no same-origin rule stops: so
the origin of what does more than read has to be the very host that it asks for.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import urlsplit

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
COOKIE = "undertone_token"

Verdict = Literal["allowed", "wrong_host", "wrong_origin", "no_token"]


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach a server bound to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class Visit:
    """What a request says about itself; None where a header is missing."""

    host: str | None
    origin: str | None = None
    cookie: str | None = None
    query_token: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server."""

    host: str
    """The address that it is bound to."""
    token: str | None
    """None asks for none, which only a loopback address may."""
    names: frozenset[str] = frozenset()
    """Further names under which it is reached, such as a reverse proxy's."""

    def judge(self, visit: Visit, acts: bool) -> Verdict:
        """Whether a request may come in; ``acts``: a websocket, or what does more than read."""
        if not self._known_host(visit.host):
            return "wrong_host"
        if acts and not _same_host(visit.origin, visit.host):
            return "wrong_origin"
        if self.token is not None and not self._knows_token(visit):
            return "no_token"
        return "allowed"

    def brings_token(self, visit: Visit) -> bool:
        """Whether the right token stands in the address, to be moved into a cookie."""
        return self.token is not None and _equal(visit.query_token, self.token)

    def _knows_token(self, visit: Visit) -> bool:
        assert self.token is not None
        cookie = _cookie(visit.cookie)
        return _equal(cookie, self.token) or _equal(visit.query_token, self.token)

    def _known_host(self, header: str | None) -> bool:
        name = _hostname(header)
        if name is None:
            return False
        if name in LOCAL_NAMES or name in self.names or name == self.host.lower():
            return True
        if is_loopback(self.host):
            return False
        try:
            ipaddress.ip_address(name)  # an address cannot be rebound
        except ValueError:
            return name == socket.gethostname().lower()
        return True


def _hostname(header: str | None) -> str | None:
    if not header:
        return None
    try:
        parts = urlsplit(f"//{header}")
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname


def _same_host(origin: str | None, host: str | None) -> bool:
    if origin is None or host is None:
        return False
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _cookie(header: str | None) -> str | None:
    if header is None:
        return None
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def _equal(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), wanted.encode())
