"""JupyterLite: a kernel in the browser, on a loop that JavaScript turns."""
