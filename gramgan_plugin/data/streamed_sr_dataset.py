"""A training set of GT and LQ pairs in shards, for sets beyond what an LMDB's list of names can carry."""

from typing import Any

from gramgan_plugin.data.fingerprint import WITHOUT_EFFECT
from gramgan_plugin.data.images import Image, decode
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset, check_known
from gramgan_plugin.data.pairs import option
from gramgan_plugin.data.shard_order import LANES, MIXED, ShardSampler
from gramgan_plugin.data.shards import Shards
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.utils.io import expanded

KNOWN = WITHOUT_EFFECT | {
    *("type", "scale", "dataroot_shards", "cache_dir", "cache_size", "lanes", "mixed_shards"),
    *("color", "gt_size", "use_hflip", "use_rot"),
}


class StreamedSRDataset(PairedSRDataset):
    """``PairedSRDataset`` over shards of ``basicsr prepare ... --to shards``, read by litdata.

    An item is that of ``PairedSRDataset`` for the same pair, with the same random numbers. The order is
    `ShardSampler`'s: by seed and epoch alone, few shards at a time, each sample once; a run resumes within an epoch.

    Args:
        opt: ``phase`` (``train``), ``scale``, ``gt_size``, ``dataroot_shards`` (a folder or URL, or a list of them);
            ``use_hflip``, ``use_rot`` (true by default), ``color``; for URLs ``cache_dir`` and ``cache_size``
            (``100GB``); ``lanes`` and ``mixed_shards``, see `ShardSampler`.

    Raises:
        OptionError: if an option is missing, wrong or unknown, or a root cannot be read.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        check_known(opt, KNOWN, "StreamedSRDataset")
        if opt.get("phase", "train") != "train":
            raise OptionError(f"{option(opt, 'type')}: StreamedSRDataset is for training; validate on PairedSRDataset")
        self._read_options()
        roots = opt.get("dataroot_shards")
        roots = list(roots) if isinstance(roots, list | tuple) else [roots]
        if not roots or not all(isinstance(root, str) and root for root in roots):
            raise OptionError(f"{option(opt, 'dataroot_shards')}: expected a folder or URL, or a list of them")
        places = [root if "://" in root else str(expanded(root)) for root in roots]
        try:
            self.shards = Shards(places, opt.get("cache_dir"), opt.get("cache_size") or "100GB")
        except UserError as error:
            raise OptionError(f"{option(opt, 'dataroot_shards')}: {error}") from error
        self.lanes, self.mixed = int(opt.get("lanes") or LANES), int(opt.get("mixed_shards") or MIXED)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one pair, as ``PairedSRDataset`` does.

        Raises:
            UserError: if it cannot be read, is too small, or GT does not fit LQ.
        """
        pair = self.shards.read(index)
        gt, lq = (_decoded(pair.key, kind, data) for kind, data in (("GT", pair.gt), ("LQ", pair.lq)))
        return {**self._paired_item(gt, lq, pair.key), "gt_path": pair.key, "lq_path": pair.key}

    def make_sampler(self, manual_seed: int, **replicas: int) -> ShardSampler:
        """Return the order of the samples, see `ShardSampler`."""
        return ShardSampler(self.shards.sizes, manual_seed, lanes=self.lanes, mixed=self.mixed, **replicas)


def _decoded(key: str, kind: str, data: bytes) -> Image:
    image = decode(data)
    if image is None:
        raise UserError(f"{key}: its {kind} cannot be decoded as an image; prepare the shards again")
    return image
