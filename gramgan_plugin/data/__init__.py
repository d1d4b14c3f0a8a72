"""Read data sets with seeded sampling; ``prepare`` makes the data sets. Imports no basicsr."""

from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.data.streamed_sr_dataset import StreamedSRDataset

__all__ = ["PairedSRDataset", "StreamedSRDataset"]
