"""The way of an iteration from the batch to `optimizer.step`: the files that a reader has to follow."""

import re
import sys
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401

import gramgan_plugin
from gramgan_plugin.config.resolve import resolve_options
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.models.build import build_model

PACKAGE = Path(gramgan_plugin.__file__).parent
# Pure functions and networks, and what reads one image: called on the way, and no part of it.
READING = ("images", "photo_wholeness", "lmdb_environment", "unreadable", "workers")
LEAVES = (
    "functional/",
    "search/",
    "archs/",
    "utils/",
    "compat.py",
    "checkpoints/rng.py",
    *(f"data/{name}.py" for name in READING),
)


def test_few_files_and_all_in_the_guide(tiny_options: dict[str, Any], workdir: Path) -> None:
    options = resolve_options(tiny_options, is_train=True) | {"rank": 0, "world_size": 1}
    model, batches, visited = build_model(options), TrainingData(options).batches(0, 0), set()

    def profile(frame: Any, event: str, argument: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            visited.add(file.relative_to(PACKAGE).as_posix())

    sys.setprofile(profile)
    try:
        batch = next(batches)[-1]
        model.feed_data(batch)
        model.optimize_parameters(1)
    finally:
        sys.setprofile(None)
    way = {name for name in visited if not name.startswith(LEAVES)}
    assert {"models/gramgan_model.py", "steps/gan_step.py", "losses/gram_patch_loss.py"} < way
    way.add("training/loop.py")  # it calls what runs here
    assert len(way) <= 15, "\n".join(sorted(way))
    guide = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    guide = guide[guide.index("\n1. ", guide.index("## The way of an iteration")) :].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+/\w+\.py)`", guide)) == way
