"""IPython in a terminal, without a kernel."""
