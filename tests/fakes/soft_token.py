"""A token without hardware: Debian's SoftHSM2 in a folder, with one ECDSA key."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "87654321"
LABEL = "drupelet-test"

_MAKE = """
import sys
import pkcs11, pkcs11.util.ec
from pkcs11 import Attribute, KeyType
token = pkcs11.lib(sys.argv[1]).get_token(token_label=sys.argv[2])
curve = pkcs11.util.ec.encode_named_curve_parameters("secp256r1")
with token.open(user_pin=sys.argv[3], rw=True) as session:
    parameters = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: curve}, local=True)
    parameters.generate_keypair(store=True, id=bytes([int(sys.argv[4])]), label="key")
"""


@dataclass(frozen=True)
class SoftToken:
    """A token's folder; `environment` is what a process needs to see it."""

    configuration: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.configuration), "DRUPELET_PKCS11_MODULE": str(MODULE)}

    def place(self, number: int = 2) -> str:
        return f"pkcs11:token={LABEL};id=%{number:02x}"

    def make_key(self, number: int = 2) -> None:
        """Make a key pair on the token, in a process of its own: a driver reads its token once."""
        import sys

        subprocess.run(
            [sys.executable, "-c", _MAKE, str(MODULE), LABEL, PIN, str(number)],
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
        )


def make_token(folder: Path) -> SoftToken:
    """Initialise a token, or skip where SoftHSM2 or python-pkcs11 is missing."""
    if not MODULE.exists():
        pytest.skip("needs Debian's softhsm2")
    pytest.importorskip("pkcs11", reason="needs python-pkcs11 (the extra hsm)")
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    token = SoftToken(configuration)
    subprocess.run(
        ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--so-pin", "12345678", "--pin", PIN],
        env={**os.environ, **token.environment},
        check=True,
        capture_output=True,
    )
    token.make_key()
    return token
