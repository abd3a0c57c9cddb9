"""Tests that drive a real ipykernel process."""
