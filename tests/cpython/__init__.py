"""CPython's own asyncio tests, with the engine and without."""
