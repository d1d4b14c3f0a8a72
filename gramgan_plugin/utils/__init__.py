"""Helpers for the whole package: files, text, YAML, the machine, threads, progress. Private; imports no basicsr."""
