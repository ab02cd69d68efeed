"""What is inside the runtime, as a CycloneDX 1.5 bill of materials: Debian's packages, Python's, llama.cpp.

Written without a library: it is one flat list, and the same contents must give the same bytes on any day. Packages
carry package URLs (purl), which is what vulnerability scanners look them up by.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import drupelet
from drupelet.forge.runtime.payload import Payload
from drupelet.forge.toolchain.llamacpp import SOURCE

MEDIA_TYPE = "application/vnd.cyclonedx+json"
FILE = "usr/share/drupelet/bom.cdx.json"
_NAMESPACE = uuid.UUID("6f1d7f9e-2a1c-5f0e-9c3b-1d1e8d0c6a11")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DebianPackage:
    """One installed package of the base."""

    name: str
    version: str
    architecture: str
    source: str


def debian_packages(status: str) -> tuple[DebianPackage, ...]:
    """Return what is installed according to the text of `/var/lib/dpkg/status`, by name."""
    found = []
    for paragraph in status.split("\n\n"):
        fields = {
            line.partition(": ")[0]: line.partition(": ")[2]
            for line in paragraph.splitlines()
            if ": " in line and not line.startswith(" ")
        }
        if fields.get("Status", "").endswith(" installed"):
            source = fields.get("Source", fields["Package"]).partition(" ")[0]
            package = DebianPackage(
                name=fields["Package"],
                version=fields["Version"],
                architecture=fields["Architecture"],
                source=source,
            )
            found.append(package)
    return tuple(sorted(found))


def bill(payload: Payload, *, base: Iterable[DebianPackage] = (), suite: str = "", epoch_s: int) -> bytes:
    """Return the bill of a payload, and of the base it lies on where that is known, as JSON."""
    components = [
        *(_debian(package, suite) for package in base),
        *(
            {
                "type": "library",
                "name": wheel.name,
                "version": wheel.version,
                "purl": f"pkg:pypi/{wheel.name.lower().replace('_', '-')}@{wheel.version}",
                "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
                **({"licenses": [{"expression": wheel.license}]} if wheel.license else {}),
            }
            for wheel in payload.wheels
        ),
        *(
            {
                "type": "application",
                "name": f"llama-server-{program.level}",
                "version": SOURCE.version,
                "description": f"llama.cpp's server for {program.level}, from {SOURCE.project} {SOURCE.version}",
                "hashes": [{"alg": "SHA-256", "content": program.digest.hex}],
                "licenses": [{"expression": "MIT"}],
                "pedigree": {"ancestors": [_llama_source()]},
            }
            for program in payload.programs
        ),
    ]
    for component in components:
        component["bom-ref"] = f"{component['name']}@{component['version']}"
    digest = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest)}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {
                "type": "application",
                "bom-ref": f"drupelet@{drupelet.__version__}",
                "name": "drupelet",
                "version": drupelet.__version__,
                "purl": f"pkg:pypi/drupelet@{drupelet.__version__}",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            },
            "properties": [{"name": "drupelet:platform", "value": f"linux/{payload.target.arch}"}],
        },
        "components": sorted(components, key=lambda one: one["bom-ref"]),
    }
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _debian(package: DebianPackage, suite: str) -> dict[str, Any]:
    query = f"arch={package.architecture}" + (f"&distro={suite}" if suite else "")
    return {
        "type": "library",
        "name": package.name,
        "version": package.version,
        "purl": f"pkg:deb/debian/{quote(package.name)}@{quote(package.version)}?{query}",
        "properties": [{"name": "drupelet:debian-source", "value": package.source}],
    }


def _llama_source() -> dict[str, Any]:
    return {
        "type": "library",
        "name": SOURCE.project,
        "version": SOURCE.version,
        "purl": f"pkg:pypi/{SOURCE.project}@{SOURCE.version}",
        "hashes": [{"alg": "SHA-256", "content": SOURCE.sha256}],
    }
