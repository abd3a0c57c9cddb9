"""The live widget: a model in the kernel and its views in the browser."""
