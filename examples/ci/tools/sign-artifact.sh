#!/bin/sh
# Sign model files and images with the family's key: ./tools/sign-artifact.sh models/*.gguf ghcr.io/org/edge-runtime:1.2
#
# Writes dist/artifacts.txt, a line for each (SHA-256 and name of a file, or an image's name), and dist/artifacts.txt.sig, the
# key's signature over exactly these bytes. Verify with: openssl pkeyutl -verify -pubin -inkey kiosk.pub.pem -rawin
# -in dist/artifacts.txt -sigfile dist/artifacts.txt.sig
#
# The key is DRUPELET_KEY_IMAGE_FAMILY_KIOSK (the text of image-family-kiosk.pem), its passphrase DRUPELET_PASSPHRASE.
set -eu
: "${DRUPELET_KEY_IMAGE_FAMILY_KIOSK:?the signing key is missing}" "${DRUPELET_PASSPHRASE:?its passphrase is missing}"
[ $# -gt 0 ] || { echo "sign-artifact: name files and images" >&2; exit 2; }
mkdir -p dist
for artifact in "$@"; do
  case $artifact in
    *.gguf) printf 'sha256:%s  %s\n' "$(sha256sum < "$artifact" | cut -c 1-64)" "${artifact##*/}" ;;
    *) printf 'image  %s\n' "$artifact" ;;
  esac
done > dist/artifacts.txt
# The key reaches openssl through a pipe and the passphrase through the environment: neither is on a command line or a disk.
printf '%s\n' "$DRUPELET_KEY_IMAGE_FAMILY_KIOSK" |
  openssl pkeyutl -sign -inkey /dev/stdin -passin env:DRUPELET_PASSPHRASE -rawin -in dist/artifacts.txt \
    -out dist/artifacts.txt.sig
echo "sign-artifact: $# artifacts are signed in dist/artifacts.txt"
