"""Read data sets with seeded sampling; ``prepare`` makes the data sets. Imports no basicsr."""

from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset

__all__ = ["PairedSRDataset"]
