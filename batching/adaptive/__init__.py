"""What :class:`batching.JustInTime` learns, and what it makes of it; see ``batching/README.md``."""
