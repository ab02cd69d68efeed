"""Whose name is used at a registry.

In order: `DRUPELET_OCI_USERNAME` and `DRUPELET_OCI_PASSWORD`, for the host in `DRUPELET_OCI_REGISTRY` if it is set; the
file named by `REGISTRY_AUTH_FILE` (podman, skopeo); `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`, as
`docker login` writes it. A file that others may read is refused. Credential helpers are not run.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drupelet.core.errors import BadInput, NotAllowed

FILE_BYTES_MAX = 1 << 20
_DOCKER_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a secret, which is in no repr."""

    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of a Basic Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find_credentials(host: str, *, environment: Mapping[str, str], home: Path) -> Credentials | None:
    """Return the credentials for `host`, or None. Raises `NotAllowed` for a file others may read, `BadInput`."""
    username, password = environment.get("DRUPELET_OCI_USERNAME"), environment.get("DRUPELET_OCI_PASSWORD")
    if username and password and environment.get("DRUPELET_OCI_REGISTRY", host) == host:
        return Credentials(username, password)
    if bool(username) != bool(password):
        raise BadInput("only one of DRUPELET_OCI_USERNAME and DRUPELET_OCI_PASSWORD is set", fix="set both, or neither")
    docker = Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
    named = environment.get("REGISTRY_AUTH_FILE")
    for path in [Path(named)] if named else [docker]:
        if path.is_file():
            return _in_file(path, host)
    return None


def refuse_one_password_for_two(first: str, second: str, *, environment: Mapping[str, str]) -> None:
    """Raise `BadInput` if the environment's password would be shown to two registries."""
    if first != second and environment.get("DRUPELET_OCI_PASSWORD") and not environment.get("DRUPELET_OCI_REGISTRY"):
        raise BadInput(
            f"DRUPELET_OCI_PASSWORD would be sent to {first} and to {second}",
            fix="say whose it is: DRUPELET_OCI_REGISTRY; and docker login to the other",
        )


def _in_file(path: Path, host: str) -> Credentials | None:
    if path.stat().st_mode & 0o077:
        raise NotAllowed("others may read this file, which holds passwords", where=str(path), fix=f"chmod 600 {path}")
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(FILE_BYTES_MAX))
        auths = value.get("auths") or {}
        entry = auths.get(host) or auths.get(f"https://{host}") or {}
        if not entry and host in ("docker.io", "registry-1.docker.io"):
            entry = auths.get(_DOCKER_HUB) or {}
        if not entry.get("auth"):
            return None
        username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (ValueError, AttributeError, TypeError, RecursionError, binascii.Error) as error:
        raise BadInput("not a registry configuration as docker login writes it", where=str(path)) from error
    return Credentials(username, password)
