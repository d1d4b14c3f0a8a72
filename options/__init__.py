"""The option files that come with the package; `-opt NAME` finds them from any working directory."""
