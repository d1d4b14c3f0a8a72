"""Validation during training: metrics and pictures of the validation sets."""

from pathlib import Path
from typing import Any

from basicsr.models.sr_model import SRModel
from torch.utils.data import DataLoader

from gramgan_plugin.evaluation.measure import measure, model_enlarger, write_image
from gramgan_plugin.evaluation.pictures import Image
from gramgan_plugin.training.logs import RunLog


def validate(model: Any, loaders: list[DataLoader[Any]], iteration: int, opt: dict[str, Any], log: RunLog) -> None:
    """Measure the model on each validation set, and save pictures if ``val.save_img`` asks for them.

    A model class with a validation of its own (video models have one) is left to do it its own way.

    Args:
        model: any BasicSR model.
        loaders: one for each set.
        iteration: for the pictures' names (``visualization/IMAGE/IMAGE_ITERATION.png``, as upstream) and the log.
        opt: resolved options.
        log: where the means go.
    """
    own = getattr(type(model), "nondist_validation", None) is not getattr(SRModel, "nondist_validation", None)
    save = bool(opt["val"].get("save_img", False))

    def keep(name: str, image: Image, truth: Image | None) -> None:
        write_image(image, Path(opt["path"]["visualization"]) / name / f"{name}_{iteration}.png")

    for loader in loaders:
        if own:
            model.validation(loader, iteration, log.board, save)
            continue
        if opt["rank"] != 0:
            continue
        result = measure(
            model_enlarger(model),
            loader,
            opt["val"].get("metrics") or {},
            model=opt["name"],
            device=model.device,
            keep=keep if save else None,
        )
        log.validation(iteration, result.dataset, result.means())
