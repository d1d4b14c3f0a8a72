"""The declared options of each dataset class: ours and BasicSR's."""

from gramgan_plugin.config.keys import Key

# What the loaders read, for any class.
LOADER: dict[str, Key] = {
    "name": Key("text", "for messages, tables and folders; letters, digits, '.', '_', '-' and '+'", needed="always"),
    "type": Key("text", "the dataset's class", needed="always"),
    "num_worker_per_gpu": Key("whole", "processes that load training data, for each GPU", default=0, least=0),
    "batch_size_per_gpu": Key("whole", "training crops an iteration, for each GPU", default=1, least=1),
    "dataset_enlarge_ratio": Key("whole", "passes over the data that count as one epoch", default=1, least=1),
    "max_unreadable": Key(
        "number",
        "share of the training images that may be unreadable; they are reported and skipped; training stops above it",
        default=0.01,
        least=0,
    ),
    "use_shuffle": Key("flag", "random order", default=True, unused="training data is always shuffled"),
    "pin_memory": Key("flag", "load into pinned memory, from which GPUs copy faster; by default if there is a GPU"),
    "persistent_workers": Key("flag", "keep the loading processes between epochs; they always are", default=True),
    "prefetch_mode": Key(
        "text", "as in BasicSR's files; batches are always loaded and copied ahead", choices=("cpu", "cuda")
    ),
    "num_prefetch_queue": Key("whole", "as in BasicSR's files, for prefetch_mode: cpu", default=1, least=1),
}

_DISK_OR_LMDB = Key(
    "section",
    "how images are stored; by default lmdb if the path ends in .lmdb",
    keys={"type": Key("text", "folders of image files, or LMDBs", needed="always", choices=("disk", "lmdb"))},
)
_BACKEND = Key(
    "section",
    "how images are stored",
    needed="always",
    open=True,
    keys={
        "type": Key(
            "text",
            "folders of image files, LMDBs, or memcached",
            needed="always",
            choices=("disk", "lmdb", "memcached"),
        )
    },
)
_GT = Key("path", "the GT images: a folder or an LMDB", needed="always")
_LQ = Key("path", "the LQ images: a folder or an LMDB", needed="always")
_TEMPLATE = Key("text", "an LQ file's name after GT's, such as '{}x4'", default="{}")
_CROP = Key("whole", "side of the random GT crop in pixels", needed="train", least=1)
_HFLIP = Key("flag", "random horizontal flips", needed="train")
_ROT = Key("flag", "random rotations by 90 degrees and vertical flips", needed="train")
_COLOR = Key("text", "y: only the luma channel", choices=("y", "rgb"))
_MEAN = Key("numbers", "subtracted from each channel")
_STD = Key("numbers", "each channel is divided by it")

KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")


def _degradation(suffix: str, which: str) -> dict[str, Key]:
    """Return the keys of the blur in one of Real-ESRGAN's two rounds."""
    return {
        f"blur_kernel_size{suffix}": Key(
            "whole", f"largest blur kernel of the {which} round", needed="always", least=1
        ),
        f"kernel_list{suffix}": Key("texts", f"kinds of its kernels: {', '.join(KERNELS)}", needed="always"),
        f"kernel_prob{suffix}": Key("numbers", "probability of each kind", needed="always", least=0),
        f"sinc_prob{suffix}": Key("number", "probability of a sinc filter instead", needed="always", least=0),
        f"blur_sigma{suffix}": Key("numbers", "smallest and largest deviation of the blur", needed="always", least=0),
        f"betag_range{suffix}": Key("numbers", "range of the shape of generalized kernels", needed="always", least=0),
        f"betap_range{suffix}": Key("numbers", "range of the shape of plateau kernels", needed="always", least=0),
    }


DATASETS: dict[str, dict[str, Key]] = {
    "PairedSRDataset": {
        "dataroot_gt": Key("paths", "GT: a folder or an LMDB, or a list of them", needed="always"),
        "dataroot_lq": Key("paths", "LQ, in the same order; leave it out with `lq`"),
        "lq": Key(
            "text",
            "LQ is made from GT by MATLAB bicubic; bicubic-uint8: as MATLAB does for uint8, rounded between its passes",
            choices=("bicubic", "bicubic-uint8"),
        ),
        "meta_info_file": Key("path", "a text file with a GT image's name on each line: only those are used"),
        "color": _COLOR,
        "io_backend": _DISK_OR_LMDB,
        "filename_tmpl": _TEMPLATE,
        "gt_size": _CROP,
        "use_hflip": Key("flag", _HFLIP.what, default=True),
        "use_rot": Key("flag", _ROT.what, default=True),
        "cache": Key("flag", "keep decoded images in memory, shared by the loading processes", default=False),
        "bit_depth": Key("whole", "16: stored GT and LQ of 16 bits keep them, in training", default=8, choices=(8, 16)),
    },
    "StreamedSRDataset": {
        "dataroot_shards": Key("paths", "shards of `prepare --to shards`: a folder, a URL, or a list", needed="always"),
        "cache_dir": Key("path", "where the shards of URLs are kept meanwhile"),
        "cache_size": Key("text", "how much of them, such as 100GB", default="100GB"),
        "lanes": Key("whole", "shards read side by side; a multiple of the processes' number", default=16, least=1),
        "mixed_shards": Key("whole", "shards of a lane whose samples are mixed", default=4, least=1),
        "color": _COLOR,
        "gt_size": _CROP,
        "use_hflip": Key("flag", _HFLIP.what, default=True),
        "use_rot": Key("flag", _ROT.what, default=True),
    },
    "PairedImageDataset": {
        "dataroot_gt": _GT,
        "dataroot_lq": _LQ,
        "meta_info_file": Key("path", "a text file with a GT image's name on each line; for folders"),
        "io_backend": _BACKEND,
        "filename_tmpl": _TEMPLATE,
        "gt_size": _CROP,
        "use_hflip": _HFLIP,
        "use_rot": _ROT,
        "color": _COLOR,
        "mean": _MEAN,
        "std": _STD,
    },
    "SingleImageDataset": {
        "dataroot_lq": _LQ,
        "meta_info_file": Key("path", "a text file with an LQ image's name on each line; for folders"),
        "io_backend": _BACKEND,
        "color": _COLOR,
        "mean": _MEAN,
        "std": _STD,
    },
    "RealESRGANDataset": {
        "dataroot_gt": _GT,
        "meta_info": Key("path", "a text file with an image's path under dataroot_gt on each line; for folders"),
        "io_backend": _BACKEND,
        **_degradation("", "first"),
        **_degradation("2", "second"),
        "final_sinc_prob": Key("number", "probability of a sinc filter at the end", needed="always", least=0),
        "gt_size": Key("whole", "not used here: the gt_size at the top of the file is", least=1),
        "use_hflip": Key("flag", _HFLIP.what, needed="always"),
        "use_rot": Key("flag", _ROT.what, needed="always"),
    },
    "RealESRGANPairedDataset": {
        "dataroot_gt": _GT,
        "dataroot_lq": _LQ,
        "meta_info": Key("path", "a text file with 'GT, LQ' on each line: paths under the two roots"),
        "io_backend": _BACKEND,
        "filename_tmpl": _TEMPLATE,
        "gt_size": _CROP,
        "use_hflip": _HFLIP,
        "use_rot": _ROT,
        "mean": _MEAN,
        "std": _STD,
    },
}

# BasicSR's own classes, some of whose keys it has renamed.
OF_BASICSR = frozenset(DATASETS) - {"PairedSRDataset", "StreamedSRDataset"}
# Classes without GT, whose images can only be measured by metrics without a reference.
WITHOUT_GT = frozenset({"SingleImageDataset"})
# Classes that read `scale` from the top of the file.
SCALED = frozenset({"PairedSRDataset", "StreamedSRDataset", "PairedImageDataset", "RealESRGANPairedDataset"})
