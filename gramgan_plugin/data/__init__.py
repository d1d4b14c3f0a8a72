"""Datasets and seeded sampling; ``prepare`` makes what they read. Imports no basicsr."""

from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset

__all__ = ["PairedSRDataset"]
