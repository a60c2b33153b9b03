"""Whether the fast way of fine-tuning learns what the plain one does: final training losses of several seeds.

Ours is the stage (bf16 where the machine has it, channels last, crops on the device); the plain one is the paper's
network and loop in float32 with torchvision's transforms on PIL images. Same drawn faces, recipe and number of steps.

python benchmarks/finetune_losses.py [--seeds 3] [--epochs 4] [--frames 960] [--json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from common import last_number
from finetune import draw

SIZE, BATCH, LR = 64, 32, 0.001

OURS = """
import json, sys
from pathlib import Path
from fercache.config import load_config
from fercache.stages.finetune import finetune
config = load_config(str(Path(sys.argv[1]).with_name("empty.yaml")), "finetune", sys.argv[4:])
run = finetune(Path(sys.argv[1]), Path(sys.argv[2]), config.finetune, seed=int(sys.argv[3]))
print(json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["loss"])
"""

PLAIN = f"""
import sys, torch, torch.nn.functional as F
from pathlib import Path
from PIL import Image
from torchvision import transforms
sys.path.insert(0, sys.argv[1])
import rivals
from fercache.data.manifest import read_manifest
torch.manual_seed(int(sys.argv[3]))
samples = []
data = read_manifest(Path(sys.argv[2]))
for video in data.split("train"):
    frames, labels = video.frames(), video.labels(data.task)
    samples += [(p, int(labels[n - 1])) for n, p in zip(frames.frame, frames.paths) if labels[n - 1] >= 0]
mean = torch.tensor([131.0912, 103.8827, 91.4953])[:, None, None]
transform = transforms.Compose([
    transforms.RandomResizedCrop({SIZE}, (0.2, 1.0)), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
    transforms.Lambda(lambda x: x * 255 - mean),
])
class Faces(torch.utils.data.Dataset):
    def __len__(self): return len(samples)
    def __getitem__(self, i): return transform(Image.open(samples[i][0]).convert("RGB")), samples[i][1]
network = rivals.resnet50_caffe(7).train()
optimizer = torch.optim.SGD(network.parameters(), lr={LR}, momentum=.9, weight_decay=5e-4)
loader = torch.utils.data.DataLoader(Faces(), batch_size={BATCH}, shuffle=True, num_workers=1)
for epoch in range(int(sys.argv[4])):
    total = 0.0
    for x, y in loader:
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        total += loss.item() * len(x)
print(total / len(samples))
"""


def main() -> None:
    """Train both ways with every seed and print the ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--frames", type=int, default=960)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    settings = {"image_size": SIZE, "batch_size": BATCH, "lr": LR, "epochs": arguments.epochs, "milestones": "[]"}
    sets = [f"{key}={value}" for key, value in settings.items()]
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        manifest = draw(Path(folder), arguments.frames)
        for seed in range(arguments.seeds):
            ours.append(last_number(OURS, manifest, Path(folder) / f"run{seed}", seed, *sets)[0])
            plain.append(last_number(PLAIN, Path(__file__).parent, manifest, seed, arguments.epochs)[0])
            print(f"seed {seed}: final loss ours {ours[-1]:.4f}, plain {plain[-1]:.4f}", flush=True)
    overlap = max(min(ours), min(plain)) <= min(max(ours), max(plain))
    ranges = [f"{min(found):.4f} to {max(found):.4f}" for found in (ours, plain)]
    print(f"ours {ranges[0]}, plain {ranges[1]}: the ranges {'overlap' if overlap else 'DO NOT overlap'}")
    if arguments.json:
        print(json.dumps({"ours": ours, "plain": plain, "overlap": overlap}))


if __name__ == "__main__":
    main()
