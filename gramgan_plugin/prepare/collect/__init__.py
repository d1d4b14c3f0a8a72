"""Collect photos for training from folders, archives and lists of URLs; sort them by measures, with a report."""
