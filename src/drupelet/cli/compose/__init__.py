"""Where adapters meet processes: one file a process, imported only by its noun."""
