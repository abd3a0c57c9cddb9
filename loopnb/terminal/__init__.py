"""loopnb in terminal IPython: cells and prompt on one loop, its guard and its end."""
