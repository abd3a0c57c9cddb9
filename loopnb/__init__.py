"""One event loop per notebook."""
