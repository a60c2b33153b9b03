"""How far each backend and precision moves an embedding from plain torch in float32, batch norm not folded.

The norm of the difference over the norm of the reference, of one frame's vector: the largest and the median over the
frames, and the largest after storing in float16. On a GPU where there is one, else on the processor.

python benchmarks/precision.py --manifest M [--weights RUN|FILE|imagenet|none] [--frames 256] [--json]
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
from pathlib import Path

import numpy as np
import torch

from fercache import runtime
from fercache.data.frames import decode
from fercache.data.manifest import read_manifest
from fercache.models.backends import BACKENDS, TORCH_DTYPES, device_of, make_backend
from fercache.models.preprocessing import filled, prepare
from fercache.models.weights import load_weights

BATCH = 32


def embeddings(embed: object, batches: list[torch.Tensor], device: torch.device) -> np.ndarray:
    """All embeddings, float32 (N, D)."""
    with torch.no_grad():
        parts = [embed(filled(batch.to(device), BATCH))[: len(batch)].float().cpu() for batch in batches]
    return torch.cat(parts).numpy()


def errors_of(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The relative error of each frame, (N,)."""
    return np.linalg.norm(found - reference, axis=1) / np.linalg.norm(reference, axis=1)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, required=True)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--frames", type=int, default=256)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    threads = runtime.configure_torch(None)
    torch.manual_seed(0)
    weights = load_weights(arguments.weights)
    every = [path for video in read_manifest(arguments.manifest).videos for path in video.frames().paths]
    chosen = every[:: max(1, len(every) // arguments.frames)][: arguments.frames]
    frames = [torch.from_numpy(decode(path).copy()).permute(2, 0, 1) for path in chosen]
    record = weights.preprocessing
    batches = [prepare(frames[start : start + BATCH], record) for start in range(0, len(frames), BATCH)]
    backbone = weights.network().backbone.to(runtime.device()).eval()
    reference = embeddings(backbone, batches, runtime.device())
    print(f"{len(chosen)} frames at {record.image_size} px, {arguments.weights}, {runtime.device()}")
    print("| backend | precision | largest | median | largest, stored in float16 |\n|---|---|---|---|---|")
    result = {}
    for name, precision in itertools.product(BACKENDS, TORCH_DTYPES):
        device = device_of(name)
        if (precision == "fp16" and device.type == "cpu") or (
            name == "openvino" and importlib.util.find_spec(name) is None
        ):
            continue
        embed = make_backend(name, backbone, BATCH, record.image_size, precision, threads)
        computed = embeddings(embed, batches, device)
        errors = errors_of(computed, reference)
        stored = errors_of(computed.astype(np.float16).astype(np.float32), reference)
        values = [float(errors.max()), float(np.median(errors)), float(stored.max())]
        result[f"{name}_{precision}"] = values
        print(f"| {name} | {precision} | {' | '.join(f'{value:.1e}' for value in values)} |", flush=True)
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
