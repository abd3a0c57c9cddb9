"""Run terminal IPython on one loop: cells and prompt, the loop's guard and its end."""
