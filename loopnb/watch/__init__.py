"""Watching: who blocks the loop, how late it is, and where its time goes."""
