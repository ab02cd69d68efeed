"""OCI registries: a small client over urllib3, and releases as ModelPack artifacts.

    reference.py    how a repository is written
    credentials.py  whose name is used there
    session.py      one request, with sign-in, retries and safe redirects
    registry.py     blobs and manifests: the distribution API
    modelpack.py    what a release looks like there; pure
    release.py      pushing, pulling and copying one

Why not the `oras` package: it writes no `artifactType`, does not resume, and brings requests along (docs/adr).
"""

from drupelet.depot.oci.reference import Reference, Repository
from drupelet.depot.oci.registry import Registry

__all__ = ["Reference", "Registry", "Repository"]
