"""Packaging. The option files in options/ are installed as the package gramgan_plugin.options."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "gramgan_plugin/version.py").read_text(), re.MULTILINE)[1]

setup(
    name="gramgan-plugin",
    version=VERSION,
    description="Gram-GAN super-resolution for BasicSR: networks, losses, models, training and testing from YAML",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["gramgan_plugin", "gramgan_plugin.*"]), "gramgan_plugin.options"],
    package_dir={"gramgan_plugin.options": "options"},
    package_data={
        "gramgan_plugin": ["py.typed"],
        "gramgan_plugin.ablation": ["*.html"],
        "gramgan_plugin.checkpoints": ["shipped/*"],
        "gramgan_plugin.evaluation": ["*.yml", "*.html", "*.js", "*.npz"],
        "gramgan_plugin.options": ["*.yml"],
        "gramgan_plugin.prepare.collect": ["*.html"],
    },
    install_requires=[
        # Its last release cannot be built on Python 3.13 and later; what trains needs it, the rest runs without.
        'basicsr==1.4.2; python_version < "3.13"',
        # Below 2.6 torch.load(weights_only=True) can be made to run code (CVE-2025-32434).
        "torch>=2.6,<3",
        "torchvision>=0.21,<1",
        "opencv-python>=4.8,<6",
        "lmdb>=1.4,<4",
        "pyyaml>=6,<7",
        "faiss-cpu>=1.8,<2",
        # Architectures outside the ESRGAN family; checkpoints without pickles.
        "spandrel>=0.4,<1",
        "safetensors>=0.4.3,<1",
        "wrapt>=1.16,<3",
        "filelock>=3.12,<5",
        # The folder of `basicsr weights`.
        "platformdirs>=3,<5",
        "numpy>=1.26,<3",
        # Photos of any kind; profiles and headers.
        "pillow>=10,<15",
        # Downloads of `basicsr prepare collect` and `basicsr weights`; the report of the former.
        "requests>=2.28,<3",
        "jinja2>=3.1,<4",
        # The k-d tree of the texture loss.
        "scipy>=1.11,<2",
        # Brings the photos of `basicsr prepare sample`.
        "scikit-image>=0.22,<1",
        "tqdm>=4.65,<5",
        # Memory and mounts of the machine; versions of packages.
        "psutil>=5.9,<8",
        "packaging>=22",
        # Writes the scripts of `basicsr completion`; with fish from 1.9 on.
        "shtab>=1.9,<2",
        # LPIPS and DISTS, which it has from 1.7 on.
        "torchmetrics>=1.7,<2",
        # Loss curves.
        "matplotlib>=3.7,<4",
    ],
    extras_require={
        "wandb": ["wandb>=0.17"],
        "onnx": ["onnx>=1.16", "onnxruntime>=1.18"],
        "openvino": ["openvino>=2024.4"],
        # `basicsr upscale`: videos; photos of phones.
        "video": ["av>=17"],
        "heic": ["pillow-heif>=0.16"],
        "test": [
            "pytest>=8",
            "hypothesis>=6.100",
            "jsonschema>=4.18",
            "piq>=0.8,<0.9",
            "POT>=0.9.3,<1",
            "onnx>=1.16",
            "onnxruntime>=1.18",
            "av>=17",
            "pillow-heif>=0.16",
        ],
        "lint": ["ruff>=0.5", "mypy>=1.10", "import-linter>=2.0", "types-psutil", "types-PyYAML"],
    },
    entry_points={"console_scripts": ["basicsr = gramgan_plugin.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Processing",
    ],
)
