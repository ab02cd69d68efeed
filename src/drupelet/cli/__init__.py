"""The command line: one file a noun. `compose` is the only place that wires adapters to processes."""
