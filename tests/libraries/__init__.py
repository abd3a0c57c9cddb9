"""Tests with other people's packages, in real kernels and without."""
