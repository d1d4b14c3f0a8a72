"""Collecting photos for training: from folders, archives and lists of URLs, sorted by measures, with a report."""

from gramgan_plugin.data.collect.collecting import Manner, Outcome, collect_photos
from gramgan_plugin.data.collect.criteria import REASONS, Criteria
from gramgan_plugin.data.collect.network import Network

__all__ = ["REASONS", "Criteria", "Manner", "Network", "Outcome", "collect_photos"]
