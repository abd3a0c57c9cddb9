"""loopnb in IPython and Jupyter: the extension, its magics, cells, interrupts and display."""
