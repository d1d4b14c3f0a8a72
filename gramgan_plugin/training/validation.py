"""Validate during training: metrics and pictures of the validation sets, divided among the processes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from basicsr.models.sr_model import SRModel
from torch import Tensor
from torch.utils.data import DataLoader

from gramgan_plugin.evaluation.enlarge import ModelEnlarger
from gramgan_plugin.evaluation.measure import Measured, SetResult, encode_png, measure_image
from gramgan_plugin.evaluation.over_time import Crops, cut_crops, update_over_time
from gramgan_plugin.evaluation.set_images import set_images
from gramgan_plugin.training.logs import RunLog
from gramgan_plugin.utils import distributed
from gramgan_plugin.utils.io import replace_file

COMPARED = 4  # images of each set


def validate(
    model: Any,
    loaders: list[DataLoader[Any]],
    iteration: int,
    opt: dict[str, Any],
    log: RunLog,
    between: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, float]]:
    """Measure the model on each validation set, and write pictures; every process of the run must call it.

    Process r of R measures the images r, r + R, ... of a set; process 0 alone writes. The results are those of a
    single process. A model class with its own validation (video models have one) runs that instead.

    Pictures, under ``visualization/``: with ``val.save_img`` each SR image as ``IMAGE/IMAGE_ITERATION.png``, as
    upstream; for the first ``val.compare`` images of a set ``over_time/SET/IMAGE.png``, with the most detailed crop
    of GT beside bicubic and SR at this and earlier validations.

    Args:
        model: any BasicSR model.
        loaders: one for each set.
        iteration: for the pictures' names and the log.
        opt: resolved options.
        log: records the means.
        between: called before each image; what it raises ends the validation.

    Returns:
        set -> metric -> mean over the images, the same on every process.

    Raises:
        UserError: for a picture that cannot be written, and with ``val.on_error: stop`` for an image that cannot be
            measured.
    """
    own = getattr(type(model), "nondist_validation", None) is not getattr(SRModel, "nondist_validation", None)
    results = {}
    for loader in loaders:
        dataset: str = loader.dataset.opt["name"]  # type: ignore[attr-defined]
        if own:
            model.validation(loader, iteration, log.board, bool(opt["val"].get("save_img", False)))
            results[dataset] = distributed.gather(_own_means(model, opt))[0]
            continue
        result = _validate_set(model, loader, iteration, opt, between)
        results[dataset] = result.means()
        log.validation(iteration, result)
    return results


def _validate_set(
    model: Any, loader: DataLoader[Any], iteration: int, opt: dict[str, Any], between: Callable[[], object]
) -> SetResult:
    dataset, world = loader.dataset.opt["name"], opt["world_size"]  # type: ignore[attr-defined]
    metrics, stop = opt["val"].get("metrics") or {}, opt["val"].get("on_error") == "stop"
    enlarge = ModelEnlarger(model, opt["val"].get("tile"))
    pictures = _Pictures(opt, dataset, iteration)
    size = len(loader.dataset)  # type: ignore[arg-type]
    mine: list[Measured] = []
    # In rounds of one image per process, so that process 0 holds at most one picture of each.
    images = set_images(loader, range(opt["rank"], size, world))
    for first in range(0, size, world):
        between()
        picture = None
        image = next(images, None)
        if image is not None:
            one = measure_image(
                enlarge, image, metrics, model=opt["name"], dataset=dataset, device=model.device, stop=stop
            )
            picture = pictures.take(first + opt["rank"], one)
            mine.append(replace(one, lq=None, image=None, truth=None))
        if pictures.any_after(first):
            pictures.write(distributed.gather_on_first(picture))
    result = SetResult(opt["name"], dataset)
    for share in distributed.gather(mine):
        for one in share:
            result.add(one)
    return result


@dataclass(frozen=True)
class _Picture:
    """What to write for one image."""

    name: str
    png: bytes | None
    crops: Crops | None


class _Pictures:
    """The pictures of one set: ``take`` on the process that has measured an image, ``write`` on process 0."""

    def __init__(self, opt: Mapping[str, Any], dataset: str, iteration: int) -> None:
        self.metrics = opt["val"].get("metrics") or {}
        self.save = bool(opt["val"].get("save_img", False))
        compared = opt["val"].get("compare")
        self.compared = COMPARED if compared is None else int(compared)
        self.folder = Path(opt["path"]["visualization"])
        self.dataset = dataset
        self.iteration = iteration

    def any_after(self, place: int) -> bool:
        """Return whether the image at a position of the set, or a later one, has a picture."""
        return self.save or place < self.compared

    def take(self, place: int, measured: Measured) -> _Picture:
        """Return the pictures of the image at a position of the set."""
        if measured.image is None:
            return _Picture(measured.name, None, None)
        return _Picture(
            measured.name,
            encode_png(measured.image, self._path(measured.name)) if self.save else None,
            cut_crops(measured, self.metrics) if place < self.compared else None,
        )

    def write(self, pictures: list[_Picture | None]) -> None:
        """Write the pictures of a round."""
        for picture in pictures:
            if picture is not None and picture.png is not None:
                replace_file(self._path(picture.name), picture.png)
            if picture is not None and picture.crops is not None:
                update_over_time(self.folder / "over_time" / self.dataset, self.iteration, picture.crops)

    def _path(self, name: str) -> Path:
        return self.folder / self.dataset / name / f"{name}_{self.iteration}.png"


def _own_means(model: Any, opt: Mapping[str, Any]) -> dict[str, float]:
    """Return the means of a model's own validation; {} if they are stored in an unknown form."""
    results, metrics = getattr(model, "metric_results", None), list(opt["val"].get("metrics") or {})
    if not isinstance(results, dict) or not results:
        return {}
    clips = list(results.values())
    if all(isinstance(clip, Tensor) and clip.ndim == 2 and clip.shape[1] == len(metrics) for clip in clips):
        # Video: clip -> (frames, metrics); the mean over the clips of their means.
        means = [clip.double().mean(dim=0).tolist() for clip in clips]
        return {metric: math.fsum(clip[i] for clip in means) / len(means) for i, metric in enumerate(metrics)}
    return {str(key): float(value) for key, value in results.items() if isinstance(value, int | float)}
