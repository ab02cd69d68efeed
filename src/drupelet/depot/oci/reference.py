"""How a repository in a registry is written: `oci://ghcr.io/shop/kiosk:1.2`, `oci://127.0.0.1:5000/kiosk@sha256:...`.

`oci+http://` speaks plain HTTP, which is taken unasked only for this machine itself, as other clients do.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.depot.errors import BadAddress

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z")
"""The distribution spec's grammar, section "Pulling manifests"."""
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_HOST = re.compile(r"(?:\[[0-9a-f:]+\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::[0-9]{1,5})?\Z")
_EXAMPLE = "for example oci://registry.shop.example/models/kiosk:1.2"
REPOSITORY_CHARACTERS_MAX = 255
SCHEMES = ("oci://", "oci+http://")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository in a registry."""

    host: str
    name: str
    plain: bool = False

    @property
    def base(self) -> str:
        """The registry's address. Docker Hub's API does not answer under the name that people write."""
        host = "registry-1.docker.io" if self.host == "docker.io" else self.host
        return f"{'http' if self.plain else 'https'}://{host}"

    def __str__(self) -> str:
        return f"oci://{self.host}/{self.name}"


@dataclass(frozen=True, slots=True)
class Reference:
    """A manifest in a repository: by tag, or by digest. Empty `tag` without digest: the repository alone."""

    repository: Repository
    tag: str = ""
    digest: Digest | None = None

    @property
    def name(self) -> str:
        """Tag or digest, as the API wants it; raises `BadAddress` if there is neither."""
        if self.digest is not None:
            return self.digest.text
        if not self.tag:
            raise BadAddress(f"{self.repository} names no version", fix=f"add one: {self.repository}:1.2")
        return self.tag

    def __str__(self) -> str:
        if self.digest is not None:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag}" if self.tag else str(self.repository)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse `oci://host[:port]/repository[:tag|@digest]`, or raise `BadAddress`."""
        scheme, _, rest = text.partition("://")
        host, slash, path = rest.partition("/")
        if f"{scheme}://" not in SCHEMES or not slash:
            raise BadAddress(f"{text[:200]!r} is not a repository's address", fix=_EXAMPLE)
        path, at, digest = path.partition("@")
        path, colon, tag = path.partition(":")
        good = _HOST.match(host) and _REPOSITORY.match(path) and len(path) <= REPOSITORY_CHARACTERS_MAX
        if not good or (colon and not _TAG.match(tag)):
            raise BadAddress(f"{text[:200]!r} is not a repository's address: lower-case names", fix=_EXAMPLE)
        plain = scheme == "oci+http" or _is_loopback(host)
        try:
            named = Digest.parse(digest) if at else None
        except BadInput as error:
            raise BadAddress(f"{text[:200]!r}: {error.what}", fix=_EXAMPLE) from error
        return cls(Repository(host, path, plain), tag, named)


def is_registry(text: str) -> bool:
    """Whether this is written like a repository's address."""
    return text.startswith(SCHEMES)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":[0-9]+\Z", host) else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
