#!/usr/bin/env bash
# Everything that wants a GPU, within ten minutes: the tests that skip without one, and the figures of the other
# scripts here. Leaves one JSON with all of it, also of what failed.
#
#     benchmarks/on_gpu.sh [FILE]             # gpu.json in the working directory if none is named
#     benchmarks/on_gpu.sh --dry-run [FILE]   # the same on the CPU, at sizes that take some minutes
#     ONLY="tests upscale" benchmarks/on_gpu.sh   # some of the steps
#
# BSD100 names a folder of its GT; without it metrics.py measures photos of scikit-image.
set -uo pipefail

dry=false
if [ "${1:-}" = "--dry-run" ]; then dry=true; shift; fi
out=$(realpath -m "${1:-gpu.json}")
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
parts=$(mktemp -d "${TMPDIR:-/tmp}/gramgan-gpu.XXXXXX")
trap 'rm -rf "$parts"' EXIT

if $dry; then
  train=(--device cpu --size 192 --batch 1 --features 8 --blocks 1 --rounds 1 --only fp32)
  loss=(--device cpu --size 96 --batch 1 --rounds 1)
  upscale=(--device cpu --sides 32 --rounds 1 --blocks 1)
  metrics=(--rounds 1)
else
  python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { echo "torch sees no GPU" >&2; exit 2; }
  train=(--device cuda --batch 8 --rounds 12 --warmup 3 --flops)
  loss=(--device cuda --rounds 3)
  upscale=(--device cuda --sides 128 512 1024 1448)
  metrics=(--device cuda --rounds 2)
fi

step() {  # NAME SECONDS COMMAND...: its exit code goes into the JSON, its output to the terminal
  local name=$1 limit=$2; shift 2
  case " ${ONLY:-$name} " in *" $name "*) ;; *) return ;; esac
  printf '\n== %s\n' "$*"
  local begun=$SECONDS
  timeout "$limit" "$@"
  echo $? > "$parts/$name.code"
  echo "-- $name: $((SECONDS - begun)) s"
}

# What must not wait for the GPU comes first.
nothing_waits=tests/models/test_gramgan_model_computing.py
step waits 90 python3 -m pytest -q -m gpu "$nothing_waits" -k test_nothing_waits_for_the_gpu_but_to_log
step tests 150 python3 -m pytest -q -m gpu --continue-on-collection-errors --junitxml "$parts/tests.xml" tests
step upscale 90 python3 benchmarks/upscale.py "${upscale[@]}" --json "$parts/upscale.json"
step metrics 60 python3 benchmarks/metrics.py ${BSD100:+"$BSD100"} "${metrics[@]}" --json "$parts/metrics.json"
step train_step 180 python3 benchmarks/train_step.py "${train[@]}" --json "$parts/train_step.json"
step gram_patch_loss 90 python3 benchmarks/gram_patch_loss.py "${loss[@]}" --json "$parts/gram_patch_loss.json"

python3 - "$parts" "$out" <<'PYTHON'
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

parts, out = map(Path, sys.argv[1:])
cuda = torch.cuda.is_available()
result = {
    "device": torch.cuda.get_device_name() if cuda else "CPU",
    "torch": str(torch.__version__),
    "exit_codes": {path.stem: int(path.read_text()) for path in sorted(parts.glob("*.code"))},
}
if (parts / "tests.xml").exists():
    suite = ET.parse(parts / "tests.xml").getroot().find("testsuite")
    result["tests"] = {key: int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")}
for path in parts.glob("*.json"):
    result[path.stem] = json.loads(path.read_text())
out.write_text(json.dumps(result, indent=2) + "\n")
print(f"\nwritten to {out}; exit codes: {result['exit_codes']}")
# pytest's 5: no test ran, as on a machine without a GPU.
sys.exit(any(code not in (0, 5) for code in result["exit_codes"].values()))
PYTHON
