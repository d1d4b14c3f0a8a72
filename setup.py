"""Installs the option files in options/ as the package gramgan_plugin.options; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["gramgan_plugin", "gramgan_plugin.*"]), "gramgan_plugin.options"],
    package_dir={"gramgan_plugin.options": "options"},
)
