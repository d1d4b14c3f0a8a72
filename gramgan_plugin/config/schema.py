"""The declared options outside datasets and models: each key's kind, default and meaning."""

from collections.abc import Mapping
from typing import Any

from gramgan_plugin.config.keys import Key

RUN_FOLDER = "results go to experiments/NAME, tests' to results/NAME"

TOP: dict[str, Key] = {
    "name": Key("text", f"name of the run; {RUN_FOLDER}; letters, digits, '.', '_' and '-'", needed="always"),
    "model_type": Key("text", "the model class, such as GramGANModel", needed="always"),
    "scale": Key("whole", "upscaling factor: how many times larger GT is than LQ", least=1),
    "num_gpu": Key("gpus", "CUDA devices: a number, 0 for the CPU, or auto: all found, or the CPU"),
    "device": Key(
        "text",
        "where num_gpu is left out: cpu, cuda, mps (Apple), xpu (Intel), or auto, the accelerator that torch finds",
        default="auto",
        choices=("auto", "cpu", "cuda", "mps", "xpu"),
    ),
    "manual_seed": Key("whole", "seed of the run; if left out, drawn and recorded", least=0, below=2**32),
    "datasets": Key(
        "section", "data sets: train, val (or val_1, val_2, ...) and test (or test_1, ...)", needed="always", open=True
    ),
    "network_g": Key("component", "the generator", needed="always", of="arch"),
    "path": Key("section", "weights to start from, and the run to resume"),
    "train": Key("section", "training; left out in files that only test"),
    "val": Key("section", "validation and testing"),
    "logger": Key("section", "what a run logs and saves, and when"),
    "dist_params": Key("section", "as in BasicSR's files; not used here"),
    "deterministic": Key("flag", "use only deterministic operations; slower on GPUs", default=False),
    "find_unused_parameters": Key(
        "flag", "training on several GPUs: allow weights that get no gradient", default=False
    ),
}

NETWORK_D = Key("component", "the discriminator", of="arch")

PATH: dict[str, Key] = {
    "pretrain_network_g": Key(
        "path",
        "the generator's weights to start from: any format of the ESRGAN family, or a public name",
    ),
    "param_key_g": Key(
        "text",
        "which weights of that file: params or params_ema, an error if it lacks them; null: those that it has; left "
        "out: params, or else those that it has, with a warning",
    ),
    "strict_load_g": Key(
        "flag",
        "require that every tensor fits; false loads the tensors that fit, at least half of the network",
        default=True,
    ),
    "pretrain_network_d": Key("path", "the discriminator's weights to start from"),
    "param_key_d": Key("text", "which weights of that file, as param_key_g"),
    "strict_load_d": Key("flag", "as strict_load_g", default=True),
    "resume_state": Key("path", "a training state to resume from; --auto_resume finds the newest"),
    "ignore_resume_networks": Key("texts", "networks that are loaded from pretrain_network_* when a run is resumed"),
}

VAL: dict[str, Key] = {
    "val_freq": Key("whole", "iterations between validations", default=5000, least=1),
    "save_img": Key("flag", "write the enlarged images", default=False),
    "compare": Key(
        "whole",
        "training: images of each set of which a comparison with GT over time is saved; 0 for none",
        default=4,
        least=0,
    ),
    "tile": Key(
        "whole",
        "side in LQ pixels of the tiles in which images are enlarged; 0: whole images; null: whole images, or tiles if "
        "memory runs out",
        least=0,
    ),
    "on_error": Key(
        "text",
        "an image that cannot be read, enlarged or measured: skip leaves it out of the means with a warning, stop ends "
        "the command",
        default="skip",
        choices=("skip", "stop"),
    ),
    "suffix": Key("text", "SR images are saved as IMAGE_SUFFIX.png; null: the run's name"),
    "metrics": Key("section", "a block for each metric, under any name", open=True),
    "pbar": Key("flag", "BasicSR's progress bar", default=False, unused="there is no progress bar in validation"),
}

METRIC = Key("component", "a metric", of="metric")
BETTER = Key(
    "text",
    "which values of the metric are better; by default lower for those of which that is known (NIQE, LPIPS, ...)",
    choices=("higher", "lower"),
)

LOGGER: dict[str, Key] = {
    "print_freq": Key("whole", "iterations between log lines", default=100, least=1),
    "save_checkpoint_freq": Key("whole", "iterations between checkpoints", default=5000, least=1),
    "save_checkpoint_format": Key(
        "text",
        "safetensors: also write net_g_*.safetensors, averaged weights if there are, for other programs",
        default="pth",
        choices=("pth", "safetensors"),
    ),
    "keep_last": Key("whole", "how many of the newest checkpoints to keep; null for all", least=1),
    "keep_best": Key(
        "text",
        "a metric under val.metrics: the networks with its best mean over the validation sets go to net_*_best.pth",
    ),
    "use_tb_logger": Key("flag", "TensorBoard events under tb_logger/NAME", default=False),
    "wandb": Key(
        "section",
        "Weights & Biases; needs its package: pip install wandb",
        keys={
            "project": Key("text", "project that the run is sent to; null for none"),
            "resume_id": Key("text", "id of the run there to resume; a run resumed here knows its own"),
        },
    ),
}

_NO_DIST = "not used: GPUs communicate by nccl, CPUs by gloo, at the address that the launcher sets"
DIST_PARAMS: dict[str, Key] = {
    "backend": Key("text", "how processes communicate", default="nccl", unused=_NO_DIST),
    "port": Key("whole", "port of their communication", default=29500, unused=_NO_DIST),
}

SECTIONS: dict[str, dict[str, Key]] = {"path": PATH, "val": VAL, "logger": LOGGER, "dist_params": DIST_PARAMS}

# A run's recorded options.yml has these, too; a new run computes its own.
COMPUTED = {
    "": frozenset(
        {"is_train", "auto_resume", "dist", "launcher", "rank", "world_size", "root_path", "manual_seed_drawn"},
    ),
    "path": frozenset({"experiments_root", "results_root", "models", "training_states", "log", "visualization"}),
    "datasets": frozenset({"phase", "scale"}),
}

# Old key name in earlier releases of BasicSR -> current name.
RENAMED_PATHS = {
    "pretrain_model_g": "pretrain_network_g",
    "pretrain_model_d": "pretrain_network_d",
    "strict_load": "strict_load_g",
}
RENAMED_DATASETS = {"use_flip": "use_hflip"}


def with_current_names(opt: Mapping[str, Any], renamed_in: frozenset[str]) -> tuple[dict[str, Any], list[str]]:
    """Return options in which keys that BasicSR has renamed have their current names.

    Args:
        opt: options; not modified.
        renamed_in: the dataset types whose keys BasicSR has renamed.

    Returns:
        The options, and a warning for each renamed key.
    """
    whole, warnings = dict(opt), []
    if isinstance(whole.get("path"), Mapping):
        whole["path"], found = _renamed(whole["path"], RENAMED_PATHS, "path")
        warnings += found
    if isinstance(whole.get("datasets"), Mapping):
        whole["datasets"] = dict(whole["datasets"])
        for key, block in whole["datasets"].items():
            if isinstance(block, Mapping) and isinstance(block.get("type"), str) and block["type"] in renamed_in:
                whole["datasets"][key], found = _renamed(block, RENAMED_DATASETS, f"datasets.{key}")
                warnings += found
    return whole, warnings


def _renamed(block: Mapping[str, Any], names: Mapping[str, str], where: str) -> tuple[dict[str, Any], list[str]]:
    renamed, warnings = dict(block), []
    for old, new in names.items():
        if old not in block:
            continue
        value = renamed.pop(old)
        if new in block:
            warnings.append(f"{where}.{old}: an older name of '{new}', which is given, too, and is used")
        else:
            renamed[new] = value
            warnings.append(f"{where}.{old}: an older name; read as '{new}', its name in BasicSR 1.4.2")
    return renamed, warnings
