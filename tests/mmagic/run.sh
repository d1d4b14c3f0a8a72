#!/usr/bin/env bash
# Train with the real MMagic: tests/mmagic/run.sh FOLDER. It makes MMagic's environment in FOLDER (Python 3.11; about 10
# minutes on 2 cores, since mmcv's operators are compiled), makes a batch and its losses by BasicSR's side in the current
# environment, and compares. The versions are those that fit together: MMagic's last release is of December 2023.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(realpath -m "${1:?usage: tests/mmagic/run.sh FOLDER}")
ours=${PYTHON:-python}            # an environment with this package and BasicSR
base=${PYTHON311:-python3.11}     # to make MMagic's from
mkdir -p "$folder"

if ! "$folder/env/bin/python" -c 'import mmagic, gramgan_plugin' 2>/dev/null; then
  "$base" -m venv "$folder/env"
  install() { "$folder/env/bin/pip" install --quiet "$@"; }
  install "pip<25" "setuptools<70" wheel
  install torch==2.1.2 torchvision==0.16.2 numpy==1.26.4 opencv-python==4.8.1.78 pandas==2.2.3
  install mmengine==0.10.7
  MMCV_WITH_OPS=1 MAX_JOBS=$(nproc) install --no-build-isolation --no-binary mmcv mmcv==2.1.0
  install diffusers==0.24.0 transformers==4.35.2 huggingface_hub==0.19.4 accelerate==0.25.0 albumentations==1.3.1 \
    opencv-python==4.8.1.78 numpy==1.26.4 lpips av einops facexlib resize_right face_alignment controlnet_aux==0.0.7 \
    click ftfy
  install --no-deps mmagic==1.2.0
  # This package without its own requirements: they ask for a newer torch.
  install wrapt filelock platformdirs "lmdb<2" "faiss-cpu<1.9" safetensors "scikit-image<0.25" scipy jinja2 \
    "spandrel==0.4.0" "torchmetrics>=1.7" numpy==1.26.4
  install --no-deps --editable .
fi

scripts=$PWD/tests/mmagic
"$ours" "$scripts/reference.py" "$folder/work"
rm -rf "$folder/work/work"
"$folder/env/bin/python" "$scripts/compare.py" "$folder/work"
"$ours" "$scripts/image.py" "$folder/work"
