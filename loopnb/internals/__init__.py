"""The only place that names private parts of CPython, IPython and ipykernel, and that patches them."""
