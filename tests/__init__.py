"""Tests of loopnb; the folders mirror the package."""
