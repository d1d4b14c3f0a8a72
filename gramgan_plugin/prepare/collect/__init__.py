"""Collecting photos for training: from folders, archives and lists of URLs, sorted by measures, with a report."""
