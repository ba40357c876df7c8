"""Which scans, and which of their slices, to annotate next."""
