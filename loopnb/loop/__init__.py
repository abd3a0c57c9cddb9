"""Own the persistent loop."""
