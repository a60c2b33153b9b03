"""Every stage on a GPU. What can run on a processor, too, does so there in the ordinary tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.frames import write_pixels, write_video
from support.ranks_script import Network, Samples, X, Y
from support.runs import relative_error, torchrun
from torch import nn

from fercache import runtime
from fercache.cache.predictions import read_predictions
from fercache.cache.reader import Cache
from fercache.config import ExtractConfig, FinetuneConfig, PredictConfig, TrainingConfig, TrainTemporalConfig
from fercache.data.affwild2 import build_manifest
from fercache.data.datasets import in_order
from fercache.data.loader import FrameLoader
from fercache.data.manifest import write_manifest
from fercache.errors import RunError, Stopped
from fercache.models.backends import make_backend
from fercache.models.checkpoint import load_checkpoint
from fercache.models.heads import get_head
from fercache.models.weights import load_weights
from fercache.rundir import RunDir
from fercache.stages.extract import extract
from fercache.stages.extract.engine import Extractor
from fercache.stages.finetune import finetune
from fercache.stages.predict import predict
from fercache.stages.train_temporal import train_temporal
from fercache.tasks import TASKS
from fercache.training.engine import Batch, Learner
from fercache.training.fit import fit
from fercache.training.losses import CrossEntropy, make_criterion
from fercache.training.start import TrainingJob

PRECISIONS = ("fp32", "bf16", "fp16")
EMBEDDING_ERROR = {"fp32": 1e-5, "fp16": 1e-3, "bf16": 1e-2}
"""Largest relative error of a frame's embedding by random weights, against the processor's in float32. On a processor
fp16 comes to 8e-4 and bf16, which has 8 bits, to 7e-3."""
LOGIT_ERROR = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Largest error of a tuned network's logits, as a share of the largest logit: its embeddings are small differences of
large numbers (5 and 35 times the errors above)."""
SIZE = 64


def on_gpu(*values: object) -> object:
    """A parameter for which a GPU is needed."""
    absent = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
    return pytest.param(*values, marks=[pytest.mark.gpu, absent], id="-".join(map(str, values)))


GPU, CPU = on_gpu("cuda"), "cpu"


def use(device: str, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Let all stages compute on `device`, though a GPU may be there."""
    if device == "cpu":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.device().type == device
    return runtime.device()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    """Videos of noise in colours that tell the class; 'b' has gaps."""
    folder, rng = tmp_path_factory.mktemp("coloured"), np.random.default_rng(0)
    colours = rng.integers(0, 256, (7, 3))
    for name, frames, split in (
        ("a", range(1, 25), "Train"),
        ("b", [1, 2, 5, 6, 7, 12, 13, 20, 21, 22, 23, 24], "Train"),
        ("v", range(1, 15), "Validation"),
    ):
        labels = np.arange(24 if split == "Train" else 14) // 2 % 7
        write_video(folder / "set", name, frames, labels, f"{split}_Set")
        for number in frames:
            pixels = np.clip(colours[labels[number - 1]] + rng.normal(0, 20, (SIZE, SIZE, 3)), 0, 255)
            write_pixels(folder / "set", name, number, pixels.astype(np.uint8))
    write_manifest(folder / "m.csv", build_manifest(folder / "set", TASKS["expr"])[0])
    return folder / "m.csv"


TUNING = FinetuneConfig(
    image_size=SIZE, optimizer="adamw", lr=1e-3, schedule="cosine", epochs=6, batch_size=12, workers=1, warmup=0.0
)
HEAD = TrainTemporalConfig(head="gru", epochs=8, batch_size=4, optimizer="adamw", lr=3e-4, schedule="cosine")
EXTRACTION = ExtractConfig(backend="eager", dtype="float32", precision="fp32", batch_size=8, workers=0)
RANDOM = replace(EXTRACTION, image_size=SIZE)


@pytest.fixture(scope="module")
def cnn(manifest, tmp_path_factory) -> Path:
    """A frame network that a processor tuned."""
    with pytest.MonkeyPatch.context() as patch:
        use("cpu", patch)
        settings = replace(TUNING, precision="fp32", epochs=4)
        return finetune(manifest, tmp_path_factory.mktemp("cnn") / "cnn", settings)


@pytest.fixture(scope="module")
def cache(manifest, cnn, tmp_path_factory) -> Path:
    """Its embeddings by a processor, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        use("cpu", patch)
        return extract(manifest, str(cnn), tmp_path_factory.mktemp("cache") / "cache", EXTRACTION)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def embeddings(cache: Path) -> torch.Tensor:
    """Of all videos, (F, D)."""
    reader = Cache(cache)
    return torch.cat([torch.from_numpy(reader.read(video_id).embedding).float() for video_id in reader.video_ids()])


def same_network(one: Path, other: Path, tolerance: float) -> None:
    networks = [load_checkpoint(run / "last.pt")["model"] for run in (one, other)]
    for name, tensor in networks[0].items():
        torch.testing.assert_close(networks[1][name], tensor, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize(
    ("device", "precision"),
    [*(on_gpu("cuda", precision) for precision in PRECISIONS), pytest.param("cpu", "fp32", marks=pytest.mark.slow)],
)
def test_fine_tuning_learns(manifest, tmp_path, monkeypatch, device, precision):
    use(device, monkeypatch)
    run = finetune(manifest, tmp_path / "run", replace(TUNING, precision=precision, clip_norm=5.0))
    assert losses(run)[-1] < 0.5 * losses(run)[0]
    assert load_checkpoint(run / "last.pt")["scaler"].get("scale", 0) > 0 or precision != "fp16"


@pytest.mark.parametrize(
    ("device", "precision", "head"),
    [
        *(on_gpu("cuda", precision, head) for precision in PRECISIONS for head in ("gru", "transformer")),
        ("cpu", "fp32", "gru"),
    ],
)
def test_heads_learn(manifest, cache, tmp_path, monkeypatch, device, precision, head):
    use(device, monkeypatch)
    run = train_temporal(
        manifest, cache, tmp_path / "run", replace(HEAD, head=head, precision=precision, standardise=True)
    )
    assert losses(run)[-1] < 0.8 * losses(run)[0]


@pytest.mark.parametrize(
    ("device", "precision", "checkpointing"),
    [
        *(on_gpu("cuda", precision, precision == "fp16") for precision in PRECISIONS),
        pytest.param("cpu", "fp32", False, marks=pytest.mark.slow),
    ],
)
def test_end_to_end_training_learns(manifest, cnn, tmp_path, monkeypatch, device, precision, checkpointing):
    use(device, monkeypatch)
    settings = replace(HEAD, end_to_end=True, weights=str(cnn), precision=precision, cnn_lr=1e-4, workers=0)
    run = train_temporal(manifest, None, tmp_path / "run", replace(settings, checkpointing=checkpointing))
    assert losses(run)[-1] < 0.8 * losses(run)[0]


@pytest.fixture(scope="module")
def random_cache(manifest, tmp_path_factory) -> Path:
    """The embeddings of random weights by a processor, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        use("cpu", patch)
        return extract(manifest, "none", tmp_path_factory.mktemp("random") / "cache", RANDOM)


@pytest.mark.parametrize(
    ("device", "precision", "backend"),
    [
        *(on_gpu("cuda", precision, backend) for precision in PRECISIONS for backend in ("eager", "compile")),
        ("cpu", "bf16", "eager"),
    ],
)
def test_embeddings_are_the_processor_s(manifest, random_cache, tmp_path, monkeypatch, device, precision, backend):
    use(device, monkeypatch)
    settings = replace(RANDOM, precision=precision, backend=backend, workers=2)
    cached = extract(manifest, "none", tmp_path / "cache", settings)
    assert relative_error(embeddings(cached), embeddings(random_cache)) < EMBEDDING_ERROR[precision]
    assert json.loads((cached / "provenance.json").read_text())["recorded"]["device"] == device


@pytest.mark.parametrize(
    ("device", "precision"), [*(on_gpu("cuda", precision) for precision in PRECISIONS), ("cpu", "bf16")]
)
def test_cached_logits_are_the_processor_s(manifest, cnn, cache, tmp_path, monkeypatch, device, precision):
    use(device, monkeypatch)
    cached = extract(manifest, str(cnn), tmp_path / "cache", replace(EXTRACTION, precision=precision))
    one, other = (Cache(path).read("v").logits for path in (cached, cache))
    assert np.abs(one - other).max() < LOGIT_ERROR[precision] * np.abs(other).max()


@pytest.mark.parametrize("device", [GPU, CPU])
@pytest.mark.parametrize("head", ["gru", "transformer"])
def test_heads_give_the_processor_s_logits(manifest, cache, tmp_path, monkeypatch, device, head):
    """By `predict`, which computes the middle alone; and of whole windows, as in training."""
    with monkeypatch.context() as patch:
        use("cpu", patch)
        run = train_temporal(manifest, cache, tmp_path / "run", replace(HEAD, head=head, precision="fp32", epochs=1))
        expected = predict(manifest, run, cache, tmp_path / "cpu.h5", PredictConfig())
    where = use(device, monkeypatch)
    predictions = predict(manifest, run, cache, tmp_path / "gpu.h5", PredictConfig(batch_size=5))
    one, other = (read_predictions(path).videos["v"].logits for path in (predictions, expected))
    np.testing.assert_allclose(one, other, atol=1e-4)
    runtime.configure_torch(None)
    network = get_head(head)(7, 2048).eval()
    rows = embeddings(cache)[:9] / 100
    index = torch.arange(9).expand(4, 9)
    with torch.no_grad():
        whole = network(rows[index])
        network, rows, index = network.to(where), rows.to(where), index.to(where)
        torch.testing.assert_close(network(rows[index]).cpu(), whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network.middle(rows, index).cpu(), whole[:, 4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", [GPU, CPU])
def test_a_recurrent_layer_computes_in_fp16_only_where_it_is_asked_to(monkeypatch, device):
    """torch's autocast gives cuDNN's recurrent layers float16 whatever it was told."""
    where, seen = use(device, monkeypatch), []
    network = get_head("gru")(7, 32).to(where)
    network.gru.register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs[0].dtype))
    with runtime.autocast("bf16"):
        logits = network(torch.randn(2, 9, 32, device=where))
    logits.float().sum().backward()
    assert seen[0] in (torch.bfloat16, torch.float32)


def learner(device: torch.device, network: nn.Module, scale: float, clip_norm: float | None = None) -> Learner:
    network = network.to(device)
    groups = [{"params": list(network.parameters()), "lr_scale": 1.0}]
    return Learner(
        network,
        CrossEntropy(),
        torch.optim.SGD(groups, 1.0),
        lambda: torch.autocast(device.type, torch.float16),
        torch.amp.GradScaler(device.type, init_scale=scale),
        clip_norm,
        1,
    )


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 3)


@pytest.mark.parametrize("device", [GPU, CPU])
def test_a_step_whose_gradients_overflow_is_skipped_and_the_scale_halved(monkeypatch, device):
    made = learner(use(device, monkeypatch), linear(), 2.0**40)
    before = {name: tensor.clone() for name, tensor in made.network.state_dict().items()}
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch(torch.arange(6), inputs.to(runtime.device()), torch.tensor([0, 1, 2] * 2))
    assert torch.isfinite(made.step(batch, 0.1, 6.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.network.state_dict().items())
    assert made.scaler.get_scale() == 2.0**39


@pytest.mark.parametrize("device", [GPU, CPU])
def test_the_gradient_is_clipped_behind_the_scaling(monkeypatch, device):
    """So the longest step is the learning rate times the length asked for, whatever the scale is."""
    made = learner(use(device, monkeypatch), linear(), 2.0**8, clip_norm=0.01)
    before = torch.cat([parameter.detach().clone().flatten() for parameter in made.network.parameters()])
    inputs = 5 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    made.step(Batch(torch.arange(6), inputs.to(runtime.device()), torch.tensor([0, 1, 2] * 2)), 0.5, 6.0)
    after = torch.cat([parameter.detach().flatten() for parameter in made.network.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


@pytest.mark.parametrize("device", [GPU, CPU])
def test_a_stopped_training_in_fp16_goes_on_with_its_scaler(tmp_path, monkeypatch, device):
    """Its first steps overflow; a scaler that began anew would skip steps again."""
    where = use(device, monkeypatch)

    class Large(Samples):
        """Inputs whose loss overflows in fp16; a signal arrives before step `stop_at` of the second epoch."""

        def __init__(self, flag: runtime.StopFlag, stop_at: int | None) -> None:
            super().__init__(runtime.Ranks(), lambda epoch, step: None)
            self.flag, self.stop_at = flag, stop_at

        def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
            for step in range(first_step, self.steps):
                if (epoch, step) == (1, self.stop_at):
                    self.flag.signal = "SIGTERM"
                index = torch.arange(41)[step :: self.steps]
                yield Batch(index, 1e4 * X[index].to(where), Y[index])

        def validate(self, network: nn.Module, check: Callable[[], None]) -> dict[str, float]:
            return {"score": 0.0}

    def train(name: str, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        network, flag = Network(), runtime.StopFlag()
        network.layers[2] = nn.Identity()
        settings = TrainingConfig(epochs=3, batch_size=8, lr=1e-6, class_balance=0.9)
        criterion = make_criterion(TASKS["expr"], settings, Y.numpy())
        job = TrainingJob(RunDir(tmp_path / name), settings, 7, 1, "fp16", runtime.Ranks(), flag)
        data = Large(flag, stop_at)
        fit(job, network.to(where), criterion, data, kind="test", header={"task": "expr"})

    with pytest.raises(Stopped):
        train("stopped", stop_at=2)
    stopped = load_checkpoint(tmp_path / "stopped" / "last.pt")
    assert stopped["place"]["step"] == 2 and 0 < stopped["scaler"]["scale"] < 65536
    train("stopped")
    train("whole")
    scalers = [load_checkpoint(tmp_path / name / "last.pt")["scaler"] for name in ("stopped", "whole")]
    assert scalers[0] == scalers[1]
    same_network(tmp_path / "stopped", tmp_path / "whole", 1e-6)


@pytest.mark.parametrize("devices", [on_gpu("cuda cpu cuda"), "cpu cpu cpu"])
def test_a_run_goes_from_one_device_to_the_other(manifest, cache, tmp_path, monkeypatch, devices):
    """An epoch on each; the same training on a processor alone gives nearly the same network."""
    settings = replace(HEAD, epochs=3, precision="fp32", lr=1e-4)
    with monkeypatch.context() as patch:
        use("cpu", patch)
        train_temporal(manifest, cache, tmp_path / "whole", settings)
    for epoch, device in enumerate(devices.split(), start=1):
        with monkeypatch.context() as patch:
            use(device, patch)
            stop_after_epoch(patch, epoch if epoch < 3 else None)
            try:
                train_temporal(manifest, cache, tmp_path / "run", settings)
            except Stopped:
                assert len(losses(tmp_path / "run")) == epoch
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)
    same_network(tmp_path / "run", tmp_path / "whole", 1e-3)


def stop_after_epoch(patch: pytest.MonkeyPatch, epoch: int | None) -> None:
    """Have a signal arrive when the metrics of an epoch are written."""
    write = RunDir.write_metrics

    def then_stop(self, history):
        write(self, history)
        if len(history) == epoch:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(RunDir, "write_metrics", then_stop)


SHARED_GPU = """
import sys
from fercache.runtime import group
group.Ranks.gpu = property(lambda self: 0)
group.GPU_BACKEND = "gloo"
from fercache.__main__ import run
if __name__ == "__main__":  # which decoding processes load, too
    run()
"""
"""The command line where all ranks have the first GPU, on which nccl refuses a second rank."""


def training_words(manifest: Path, out: Path) -> list[str]:
    words = ["finetune", "--manifest", manifest, "--weights", "none", "--out", out]
    sets = [f"image_size={SIZE}", "optimizer=adamw", "lr=3e-4", "epochs=3", "batch_size=24", "precision=bf16"]
    return [*map(str, words), *(word for text in sets for word in ("--set", text))]


@pytest.mark.parametrize("device", [GPU])
def test_two_ranks_on_one_gpu_train_one_network(manifest, tmp_path, device):
    script = tmp_path / "script.py"
    script.write_text(SHARED_GPU)
    answer = torchrun(2, script, *training_words(manifest, tmp_path / "run"))
    assert answer.returncode == 0, answer.stderr
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["ranks"] == 2


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(
            2,
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees fewer than two GPUs here"),
            ],
        )
    ],
)
def test_ranks_on_gpus_of_their_own_train_one_network(manifest, tmp_path, count):
    """By nccl, and by our own launcher."""
    words = [*training_words(manifest, tmp_path / "run"), "--gpus", str(count)]
    subprocess.run([sys.executable, "-m", "fercache", *words], check=True, timeout=180)
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0]


@pytest.mark.parametrize("device", [GPU])
def test_a_compiled_network_learns_the_same(manifest, tmp_path, device):
    runtime.require_compiler()
    settings = replace(TUNING, precision="fp32", epochs=2, crop_scale=(1.0, 1.0), flip=False)
    plain = finetune(manifest, tmp_path / "plain", settings)
    compiled = finetune(manifest, tmp_path / "compiled", replace(settings, compile=True))
    assert losses(compiled)[0] == pytest.approx(losses(plain)[0], rel=1e-2)
    assert losses(compiled)[-1] < losses(compiled)[0]


@pytest.mark.parametrize("device", [GPU])
def test_memory_that_runs_out_is_one_sentence(manifest, tmp_path, device):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        with pytest.raises(
            RunError, match=r"^GPU 0 \(.*GiB\) ran out of memory: lower batch_size \(found 24\) or image_size$"
        ):
            finetune(manifest, tmp_path / "run", replace(TUNING, image_size=640, batch_size=24, precision="fp32"))
        with pytest.raises(RunError, match=r"^GPU 0 \(.*ran out of memory: lower batch_size \(found 512\)$"):
            settings = replace(EXTRACTION, image_size=448, batch_size=512)
            extract(manifest, "none", tmp_path / "cache", settings)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not (tmp_path / "run" / "last.pt").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("device", [GPU])
def test_no_process_is_forked_from_one_with_cuda_in_it(manifest, device):
    torch.cuda.init()
    paths = sorted(map(str, manifest.parent.rglob("*.jpg")))
    frames = iter(FrameLoader(paths, in_order(range(len(paths)), 4), 2, pin=True))
    next(frames)
    for process in multiprocessing.active_children():
        parent = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
        opened = [os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir() if path.is_symlink()]
        assert parent != os.getpid()
        assert not any(name.startswith("/dev/nvidia") for name in opened)
    assert sum(len(batch.index) for batch in frames) == len(paths) - 4


@pytest.mark.parametrize("device", [GPU, CPU])
def test_hidden_gpus_are_not_used(manifest, cnn, cache, tmp_path, device):
    words = ["extract", "--manifest", manifest, "--weights", cnn, "--cache", tmp_path / "cache", "--backend", "eager"]
    words += ["--precision", "fp32", "--dtype", "float32", "--batch-size", "8", "--set", "workers=0"]
    subprocess.run(
        [sys.executable, "-m", "fercache", *map(str, words)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        check=True,
    )
    assert json.loads((tmp_path / "cache" / "provenance.json").read_text())["recorded"]["device"] == "cpu"
    assert torch.equal(embeddings(tmp_path / "cache"), embeddings(cache))


@pytest.mark.parametrize("device", [GPU, CPU])
@pytest.mark.parametrize("timed", [False, True], ids=["by rule", "by timing"])
def test_the_choice_of_kernels_changes_nothing_that_is_promised(monkeypatch, device, timed):
    """A frame's bits depend on no neighbour, and float32 embeddings are the same to 1e-5."""
    where = use(device, monkeypatch)
    runtime.configure_torch(None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", timed)
    runtime.seed_everything(0)
    network = load_weights("none").network(7).eval()
    frames = 50 * torch.randn(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.embed(frames)
    embed = make_backend("eager", network.backbone.to(where), 8, SIZE, "fp32", 1)
    embedded = embed(frames.to(where)).cpu()
    others = embed(torch.cat([frames[3:4], frames.flip(0)[1:]]).to(where)).cpu()
    assert torch.equal(others[0], embedded[3])
    assert relative_error(embedded, expected) < 1e-5


@pytest.mark.parametrize("device", [GPU, CPU])
def test_copies_that_nobody_waits_for_arrive_whole(monkeypatch, device):
    """Memory of a copy that is under way must not be used again for the next one."""
    where = use(device, monkeypatch)
    busy = torch.randn(2048, 2048, device=where)
    copies = []
    for number in range(100):
        if device == "cuda":
            busy = busy @ busy * 1e-3
        copies.append(runtime.to_device(torch.full((50_000,), float(number)), where))
    for number, copied in enumerate(copies):
        assert copied.device.type == device and bool((copied == number).all())


@pytest.mark.parametrize("device", [GPU, CPU])
def test_a_stopped_extraction_goes_on_inside_a_video(manifest, cnn, cache, tmp_path, monkeypatch, device):
    use(device, monkeypatch)
    settings = replace(EXTRACTION, batch_size=4)
    run = Extractor.run

    def then_stop(self, batches, stop):
        for number, result in enumerate(run(self, batches, stop)):
            if number == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "run", then_stop)
        with pytest.raises(Stopped):
            extract(manifest, str(cnn), tmp_path / "cache", settings)
    assert not (tmp_path / "cache" / "a.h5").exists()
    extract(manifest, str(cnn), tmp_path / "cache", settings)
    assert relative_error(embeddings(tmp_path / "cache"), embeddings(cache)) < 1e-5
