"""What all of the package shares: files, text, YAML, the machine, threads, progress. Private; imports no basicsr."""
