"""The pushed folder in Node: the probabilities of transformers.js are those of `predict`."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from trees import photograph

import convnextv2

ROOT = Path(__file__).parents[3]
PACKAGES = os.environ.get("TRANSFORMERS_JS", "")


@pytest.mark.skipif(not shutil.which("node"), reason="Node is not installed")
@pytest.mark.skipif(
    not PACKAGES,
    reason="TRANSFORMERS_JS does not name a folder with node_modules/@huggingface/transformers",
)
@pytest.mark.parametrize(("dtype", "most"), [("fp32", 1e-5), ("q8", 0.05)])
def test_node_gives_the_probabilities_of_predict(
    weights: Path, tmp_path: Path, dtype: str, most: float
) -> None:
    # Node finds packages beside the script.
    script = shutil.copy(ROOT / "benchmarks" / "transformers_js.mjs", Path(PACKAGES))
    folder = tmp_path / "hub"
    convnextv2.push(weights, "me/trees", dry_run=True, out=folder, onnx="on")
    # Images that need no resizing, which is another one in JavaScript: 73 = floor(64 / 0.875).
    images = [str(tmp_path / f"{seed}.png") for seed in range(8)]
    for seed, path in enumerate(images):
        Image.fromarray(photograph(seed, 73, 73)).save(path)
    command = ["node", script, str(folder), dtype, *images]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=PACKAGES)
    ours = convnextv2.predict(weights, images, top_k=4, precision="float32")
    for one, line in zip(ours, done.stdout.splitlines(), strict=True):
        named = {found["label"]: found["score"] for found in json.loads(line)["predictions"]}
        for found in one["predictions"]:
            assert named[found["class"]] == pytest.approx(found["prob"], abs=most)
