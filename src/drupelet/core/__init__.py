"""The vocabulary every room shares: names, digests, slots, states, reasons, errors. Standard library only, no I/O."""
