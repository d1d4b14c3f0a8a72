"""faiss, imported when it is first needed."""

import importlib
from typing import Any

import torch

from gramgan_plugin.errors import UserError


def faiss_library() -> Any:
    """The module, set to as many threads as torch uses: one in DataLoader's workers, where more would wait forever.

    Raises:
        UserError: if it is not installed.
    """
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise UserError(f"faiss cannot be loaded ({error}); install faiss-cpu, or take the kdtree index") from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss


def has_faiss_for_gpus() -> bool:
    """Whether the faiss that is installed can search on a GPU."""
    faiss = faiss_library()
    return bool(hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus())
