"""Datasets and seeded sampling; ``prepare`` makes what they read. Imports no basicsr."""

from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.data.seeded import SampleIndex, SeededDataset, SeededSampler

__all__ = ["PairedSRDataset", "SampleIndex", "SeededDataset", "SeededSampler", "to_model_batch"]
