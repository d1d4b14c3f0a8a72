"""The version; in a module of its own, since importing it from the package would be a circle."""

__version__ = "0.2.0"
