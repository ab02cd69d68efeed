"""Every byte that crosses a process boundary: versioned, bounded, typed. See docs/formats."""
