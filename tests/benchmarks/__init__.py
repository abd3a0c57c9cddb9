"""Measure what nesting costs, side by side with stock asyncio and the other tools (`make bench`)."""
