"""What this machine has and lacks for a run: facts for ``basicsr doctor``, each with a reason and a cure if bad.

Nothing here raises because something is absent or broken: that is what it reports.
"""

from gramgan_plugin.diagnostics.findings import Finding, Level, examine, ok, problem, warning
from gramgan_plugin.diagnostics.hardware import devices
from gramgan_plugin.diagnostics.software import packages
from gramgan_plugin.diagnostics.storage import dataroots, runs, working_directory
from gramgan_plugin.diagnostics.weights import named_weights, vgg19

__all__ = [
    "Finding",
    "Level",
    "dataroots",
    "devices",
    "examine",
    "named_weights",
    "ok",
    "packages",
    "problem",
    "runs",
    "vgg19",
    "warning",
    "working_directory",
]
