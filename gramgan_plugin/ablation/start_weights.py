"""The weights that the runs of an ablation start from, as files that a benchmark measures."""

from pathlib import Path

from gramgan_plugin.ablation.ablation_file import Ablation, AblationRun
from gramgan_plugin.checkpoints.generators import recognise
from gramgan_plugin.checkpoints.networks import build_network
from gramgan_plugin.checkpoints.tensor_files import save_tensors
from gramgan_plugin.checkpoints.weights_cache import resolve_weights
from gramgan_plugin.checkpoints.weights_file import WeightsFile, read_weights
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.sections import section


def start_weights(ablation: Ablation, folder: Path, problems: list[str]) -> dict[str, str]:
    """Write the weights that runs start from, under the key that training takes, and return label -> file.

    Args:
        ablation: the ablation.
        folder: where to write.
        problems: gets a line for each start that cannot be measured: gone, damaged, of another scale.
    """
    found = {}
    for number, (label, run) in enumerate(ablation.starts().items()):
        try:
            file = _read(run)
            network = build_network(file, recognise(file.state))
            if network.scale != run.options.get("scale"):
                raise UserError(f"{file.path}: has scale {network.scale}")
            save_tensors({"params": file.state}, folder / f"{number}.pth")
        except UserError as error:
            problems.append(f"{label} is not measured: {error}")
            continue
        found[label] = str(folder / f"{number}.pth")
    return found


def _read(run: AblationRun) -> WeightsFile:
    paths = section(run.options, "path")
    path, asked = resolve_weights(str(paths["pretrain_network_g"])), paths.get("param_key_g") or "params"
    held = read_weights(path, with_data=False).keys
    return read_weights(path, asked if asked in held else None)
