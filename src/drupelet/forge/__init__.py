"""From a checkpoint to a signed, published release: convert, quantize, evaluate, pack, sign, publish.

Runs on a laptop or in a CI job and keeps no state but a cache. Nothing here runs on a device.
"""
