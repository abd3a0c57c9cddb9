"""Owning the persistent loop."""
