"""Checks of finished LMDBs: pages, list, images, and whether LQ is GT's downsampling."""

from gramgan_plugin.data.prepare.verify.report import Check, State, Verification
from gramgan_plugin.data.prepare.verify.run import verify
from gramgan_plugin.data.prepare.verify.targets import Target, find_target

__all__ = ["Check", "State", "Target", "Verification", "find_target", "verify"]
