"""What importing the plugin does and does not do, each in a process of its own."""

import subprocess
import sys

import pytest

NAMES = {
    "arch": [
        *("GramGANDiscriminator", "GramGANRealPhotoDiscriminator", "SRGANDiscriminator", "SRResNetBN"),
        *("SuRGeCritic", "SuRGeNet", "UNetDiscriminatorSNTaps"),
    ],
    "loss": [
        *("GramPatchLoss", "DiscPerceptualLoss", "MaskedRaGANLoss", "VGGPerceptualLoss"),
        *("JensenShannonLoss", "GromovWassersteinLoss"),
    ],
    "model": ["GramGANModel"],
    "dataset": ["PairedSRDataset"],
}


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_neither_torch_nor_basicsr():
    code = "import sys, gramgan_plugin; print([m for m in ('torch', 'basicsr', 'numpy') if m in sys.modules])"
    assert _python(code).strip() == "[]"


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom gramgan_plugin.cli.main import main\n"
        "for argv in (['--help'], ['train', '--help'], ['weights', 'fetch', '--help'], ['--version']):\n"
        "    try: main(argv)\n    except SystemExit as end: assert end.code == 0\n"
        "print([m for m in ('torch', 'basicsr', 'numpy', 'yaml', 'shtab', 'requests') if m in sys.modules])"
    )
    assert _python(code).strip().endswith("[]")


@pytest.mark.parametrize(
    "imports",
    [
        "import gramgan_plugin, basicsr",
        "import gramgan_plugin.models, basicsr",
        "import gramgan_plugin.steps, basicsr",
        "import gramgan_plugin.training.loop",
        "import gramgan_plugin.compat; gramgan_plugin.compat.provide_functional_tensor(); import basicsr",
        # Before the plugin, with the module that BasicSR misses provided by hand.
        "import sys, torchvision.transforms.functional as f\n"
        "sys.modules['torchvision.transforms.functional_tensor'] = f\n"
        "import basicsr, gramgan_plugin",
    ],
)
def test_registered_in_any_order_of_imports(imports):
    code = (
        f"{imports}\nfrom basicsr.utils import registry\n"
        f"names = {NAMES!r}\n"
        "for kind, wanted in names.items():\n"
        "    known = getattr(registry, kind.upper() + '_REGISTRY')\n"
        "    assert all(name in known for name in wanted), (kind, list(known.keys()))\n"
        "from gramgan_plugin.registration import register_all; register_all()\n"
        "print('done')"
    )
    assert _python(code).strip().endswith("done")


def test_the_tensor_side_needs_no_host():
    code = (
        "import importlib, pkgutil, sys\nfrom gramgan_plugin import archs, functional, losses, search, steps\n"
        "for package in (archs, functional, losses, search, steps):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "print([m for m in ('basicsr', 'cv2', 'lmdb') if m in sys.modules])"
    )
    assert _python(code).strip() == "[]"


def test_losses_load_nothing_that_opens_files():
    """They are handed a database and a network; faiss, the readers of data and JSON stay out."""
    code = (
        "import sys, torch\nbefore = set(sys.modules)\nimport gramgan_plugin.losses\n"
        "rooms = ('data', 'prepare', 'patchdb', 'checkpoints', 'models', 'config', 'registries')\n"
        "new = set(sys.modules) - before\n"
        "print([m for m in new if m.split('.')[0] in ('faiss', 'lmdb', 'cv2', 'yaml')\n"
        "       or any(m.startswith('gramgan_plugin.' + room) for room in rooms) or m == 'gramgan_plugin.utils.io'])\n"
        # torch itself has loaded json
        "print([m for m in new if m.startswith('gramgan_plugin') and hasattr(sys.modules[m], 'json')])"
    )
    assert _python(code).split() == ["[]", "[]"]
