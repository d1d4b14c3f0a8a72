"""Make patch databases: choose patches of photos; build, update, merge and inspect databases."""
