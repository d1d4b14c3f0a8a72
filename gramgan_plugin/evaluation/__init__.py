"""Measure models on image sets, and write tables and pictures of the results."""
