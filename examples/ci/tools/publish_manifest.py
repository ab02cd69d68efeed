"""Publish a validated model: sign its release manifest into the depot, and write a small one that names the image.

python tools/publish_manifest.py --image ghcr.io/org/edge-runtime:1.2 --model models/model_v1.gguf

What was not signed by `sign-artifact.sh` is refused. KEYS is the key ring's folder (public files, and the keys by
DRUPELET_KEY_* or in private/), DEPOT the depot. `dist/release.json` names version, model, image and recommended stages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from drupelet.cli.main import main as drupelet
from drupelet.core.errors import DrupeletError, NotFound, Untrusted
from drupelet.durable import PosixDisk
from drupelet.trust.keys import KeyRing
from drupelet.wire.codec import decode
from drupelet.wire.manifest import ReleaseManifest

SIGNED = Path("dist/artifacts.txt")


def refuse_unsigned(model: Path, image: str, keys: Path, family: str) -> None:
    """Raise `Untrusted` unless the family's key has signed this very model and this image's name."""
    ring = KeyRing(PosixDisk(), keys.absolute(), passphrase=lambda: "").info
    if not SIGNED.is_file():
        raise NotFound("nothing is signed", where=str(SIGNED), fix="run tools/sign-artifact.sh first")
    text, signature = SIGNED.read_bytes(), SIGNED.with_name(SIGNED.name + ".sig").read_bytes()
    key = load_pem_public_key(ring.of(f"image/{family}")[0].pem)
    assert isinstance(key, Ed25519PublicKey)
    try:
        key.verify(signature, text)
    except InvalidSignature as error:
        raise Untrusted("the signature is not the family key's", where=str(SIGNED)) from error
    with model.open("rb") as file:
        line = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}  {model.name}"
    for wanted in (line, f"image  {image}"):
        if wanted not in text.decode().splitlines():
            raise Untrusted(f"this is not among what was signed: {wanted}", where=str(SIGNED))


def run(*words: str) -> None:
    """Run a command of Drupelet's in this process; raise its exit code if it fails."""
    try:
        drupelet(list(words))
    except SystemExit as ended:
        if ended.code:
            raise


def publish(model: Path, image: str) -> None:
    """Check, sign and publish the release; write what was published."""
    keys, depot = Path(os.environ.get("KEYS", "keys")), os.environ.get("DEPOT") or "depot"
    package = model.with_name(model.name + ".package")
    path = package / "manifest.json"
    if not path.is_file():
        raise NotFound("this model was not validated", where=str(package), fix="run tests/validate_model.py first")
    manifest = decode(ReleaseManifest, path.read_bytes(), where=str(path))
    refuse_unsigned(model, image, keys, manifest.family)
    run("forge", "publish", str(package), "--depot", depot, "--keys", str(keys))
    run("release", "export", str(package), "--format", "article", "--out", "dist", "--keys", str(keys))
    small = json.loads(Path("dist", f"{manifest.variants[0].name}.json").read_text())
    release = {
        "release": manifest.release.path,
        "image": image,
        "model": small,
        "recommended_rollout": [stage.devices for stage in manifest.stages],
    }
    Path("dist/release.json").write_text(json.dumps(release, indent=2) + "\n")
    print(f"{manifest.release.path} is in {depot}; dist/release.json names it and {image}")


def main() -> int:
    """Read the command line and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", required=True)
    parser.add_argument("--model", type=Path, required=True)
    given = parser.parse_args()
    try:
        publish(given.model, given.image)
    except DrupeletError as error:
        print(f"publish_manifest: {error.line()}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
