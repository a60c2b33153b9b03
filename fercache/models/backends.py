"""The forms in which a frozen backbone computes embeddings: plain torch, compiled, or OpenVINO's.

Legend: B frames of a batch, always the same number; S side of the input; D embedding.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fercache import runtime
from fercache.errors import ConfigError

Embed = Callable[[torch.Tensor], torch.Tensor]
"""Prepared frames, float32 (B, 3, S, S), to embeddings, (B, D) in the precision of the computation."""

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

OPENVINO_FROM, COMPILE_FROM = 600, 5000
"""Frames of 224 px from which on a faster backend wins back the seconds that it takes to be made.

On two cores: eager 44, compiled 51, OpenVINO 59 frames/s; 4 s to convert for OpenVINO, up to 25 s to compile.
"""
GPU_BATCH, CPU_BATCH, CPU_SMALL_BATCH = 128, 32, 64
"""Default frames a pass; the last for inputs up to `SMALL_PX` on a CPU."""
SMALL_PX = 128


def standard_batch_size(device: torch.device, image_size: int) -> int:
    """Default frames a pass of the network."""
    if device.type == "cuda":
        return GPU_BATCH
    return CPU_SMALL_BATCH if image_size <= SMALL_PX else CPU_BATCH


@dataclass(frozen=True)
class BackendChoice:
    """A backend, and why it was chosen."""

    name: str
    reason: str


def choose_backend(
    wanted: str, recorded: str | None, frames: int, image_size: int, device: torch.device
) -> BackendChoice:
    """The backend that `wanted` (auto, eager, compile or openvino) means for so many frames on a device.

    auto takes what was `recorded` when the work began; else it goes by the device, what is installed, and the amount
    of work. ConfigError where the chosen one cannot run here.
    """
    if wanted != "auto":
        choice = BackendChoice(wanted, "as configured")
    elif recorded is not None:
        choice = BackendChoice(recorded, "as the cache was begun with")
    else:
        choice = _best_backend(frames * (image_size / 224) ** 2, device)
    if choice.name == "compile":
        runtime.require_compiler()
    if choice.name == "openvino" and not _openvino_installed():
        raise ConfigError(
            f"backend: openvino ({choice.reason}) is not installed: pip install 'fercache[openvino]', or take another"
        )
    return choice


def _best_backend(work: float, device: torch.device) -> BackendChoice:
    """`work`: frames, counted as frames of 224 px."""
    if device.type == "cuda":
        return BackendChoice("eager", "there is a GPU; `compile` may be configured")
    if _openvino_installed():
        if work >= OPENVINO_FROM:
            return BackendChoice("openvino", "the fastest on a CPU, and installed")
        return BackendChoice("eager", "too few frames to pay for OpenVINO's conversion")
    if not runtime.has_compiler():
        return BackendChoice("eager", "neither OpenVINO nor a C++ compiler is installed; fercache[openvino] is faster")
    if work >= COMPILE_FROM:
        return BackendChoice("compile", "OpenVINO is not installed; fercache[openvino] is faster")
    return BackendChoice("eager", "too few frames to pay for compiling")


def _openvino_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


def device_of(backend: str) -> torch.device:
    """Where a backend computes: OpenVINO on the CPU, the others on a GPU where there is one."""
    return torch.device("cpu") if backend == "openvino" else runtime.device()


def make_backend(
    name: str, backbone: nn.Module, batch_size: int, image_size: int, precision: str, threads: int
) -> Embed:
    """The backbone in its fastest form for inputs of exactly (batch_size, 3, image_size, image_size).

    A compiled one is compiled in its first call. ConfigError where the machine lacks the precision.
    """
    return BACKENDS[name](backbone, (batch_size, 3, image_size, image_size), precision, threads)


def _eager(backbone: nn.Module, _shape: tuple[int, ...], precision: str, _threads: int) -> Embed:
    network, dtype = _frozen(backbone, precision), TORCH_DTYPES[precision]

    @torch.no_grad()
    def embed(frames: torch.Tensor) -> torch.Tensor:
        return network(frames.to(dtype, memory_format=torch.channels_last))

    return embed


def _compiled(backbone: nn.Module, _shape: tuple[int, ...], precision: str, _threads: int) -> Embed:
    # With the weights frozen, they are laid out for the CPU once, and activations are fused with convolutions.
    network = torch.compile(_frozen(backbone, precision), dynamic=False, options={"freezing": True})
    dtype = TORCH_DTYPES[precision]

    @torch.no_grad()  # under inference_mode the compiler fuses less
    def embed(frames: torch.Tensor) -> torch.Tensor:
        return network(frames.to(dtype, memory_format=torch.channels_last))

    return embed


def _openvino(backbone: nn.Module, shape: tuple[int, ...], precision: str, threads: int) -> Embed:
    # On import OpenVINO reports its use over the network, unless its telemetry package is missing.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    backbone = copy.deepcopy(backbone).cpu().float().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter uses deprecated parts of torch
        model = openvino.convert_model(backbone, example_input=torch.zeros(1, *shape[1:]), input=list(shape))
    # Frames lie channels last in memory, and need no transposition this way.
    layouts = openvino.preprocess.PrePostProcessor(model)
    layouts.input().tensor().set_layout(openvino.Layout("NHWC"))
    layouts.input().model().set_layout(openvino.Layout("NCHW"))
    model = layouts.build()
    wanted = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision]
    properties = {"INFERENCE_PRECISION_HINT": wanted, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", properties)
    actual = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if actual != wanted:
        raise ConfigError(f"precision: found {precision}, but OpenVINO computes in {actual} on this CPU")

    def embed(frames: torch.Tensor) -> torch.Tensor:
        (output,) = compiled([np.ascontiguousarray(frames.permute(0, 2, 3, 1).numpy())]).values()
        return torch.from_numpy(np.array(output, np.float32))  # a copy: the next call overwrites its output

    return embed


BACKENDS: dict[str, Callable[[nn.Module, tuple[int, ...], str, int], Embed]] = {
    "eager": _eager,
    "compile": _compiled,
    "openvino": _openvino,
}


def _frozen(backbone: nn.Module, precision: str) -> nn.Module:
    """A copy for inference: batch norm folded into the convolutions, in one type, channels last."""
    copied = fold_batch_norm(copy.deepcopy(backbone).eval())
    return (
        copied.to(runtime.device(), TORCH_DTYPES[precision]).to(memory_format=torch.channels_last).requires_grad_(False)
    )


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold every batch norm into the convolution before it, in place; the same function but for rounding.

    A module's children are taken to follow one another in its `forward`, too, as in our backbones.
    """
    children = list(network.named_children())
    for (name, module), (next_name, next_module) in pairwise(children):
        if isinstance(module, nn.Conv2d) and isinstance(next_module, nn.BatchNorm2d):
            setattr(network, name, fuse_conv_bn_eval(module, next_module))
            setattr(network, next_name, nn.Identity())
    for _, module in children:
        fold_batch_norm(module)
    return network
