"""The one place that makes bytes survive a power cut: a `Disk` port and its POSIX adapter."""

from drupelet.durable.port import Disk, DiskBroken, DiskFull, Locked, PartFile, ReadOnlyDisk, hash_file
from drupelet.durable.posix import PosixDisk

__all__ = ["Disk", "DiskBroken", "DiskFull", "Locked", "PartFile", "PosixDisk", "ReadOnlyDisk", "hash_file"]
