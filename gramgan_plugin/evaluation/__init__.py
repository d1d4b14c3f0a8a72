"""Measuring models on image sets, and the tables that come of it."""
