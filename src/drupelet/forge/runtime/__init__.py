"""What a device runs beside its models: a container image and Debian packages, made from one payload.

    payload    the file tree below /usr: this very package, its dependencies as wheels, llama-server
    base       Debian's packages as a tree, for an image made without a registry
    image      payload + base -> a multi-arch OCI image, by buildah
    debian     payload + units + scripts -> a .deb for one release of Debian and one architecture
    bom        what is inside, as CycloneDX
    vouching   the signed manifest that vouches for an image

Nothing is run for another architecture but what Debian's own package scripts need: wheels and programs are put in place
as files. So a package for arm64 is made on any machine, and the same inputs make the same bytes.
"""
