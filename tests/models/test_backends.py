"""The backbone in its forms for inference."""

from __future__ import annotations

import pytest
import torch
from support.runs import relative_error
from torch import nn

from fercache import runtime
from fercache.errors import ConfigError
from fercache.models import backends
from fercache.models.backends import choose_backend, fold_batch_norm, make_backend
from fercache.models.resnet import imagenet_resnet50, vggface2_resnet50

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SIZE = 64


def trained_like(network: nn.Module) -> nn.Module:
    """Statistics and weights as after training: folding them must change something."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.1, 0.1),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.1, 0.1),
            ):
                tensor.copy_(torch.empty_like(tensor).uniform_(low, high, generator=generator))
    return network.eval()


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return trained_like(vggface2_resnet50())


@pytest.fixture(scope="module")
def frames():
    return torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) * 255 - 110


def plain(backbone, frames):
    with torch.no_grad():
        return backbone(frames)


@pytest.mark.parametrize("build", [vggface2_resnet50, imagenet_resnet50])
def test_folding_keeps_the_function_and_leaves_no_batch_norm(build, frames):
    torch.manual_seed(0)
    network = trained_like(build())
    expected = plain(network, frames)
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert relative_error(plain(folded, frames), expected) < 1e-5


@pytest.mark.parametrize(
    ("name", "precision", "most"),
    [
        ("eager", "fp32", 1e-5),
        ("eager", "bf16", 0.02),
        ("openvino", "fp32", 1e-5),
        pytest.param("compile", "fp32", 1e-5, marks=pytest.mark.slow),
        pytest.param("compile", "bf16", 0.02, marks=pytest.mark.slow),
    ],
)
def test_every_backend_computes_the_same(backbone, frames, name, precision, most):
    if name == "openvino":
        pytest.importorskip("openvino")
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    embed = make_backend(name, backbone, 8, SIZE, precision, runtime.thread_count(None))
    expected = plain(backbone, frames)
    embedded = embed(frames).float()
    assert embedded.shape == (8, 2048) and relative_error(embedded, expected) < most
    # A frame's bits depend neither on its place nor on its neighbours, and a second call gives them again.
    other = torch.cat([frames[3:4], torch.zeros(3, 3, SIZE, SIZE), frames[2:3].expand(4, -1, -1, -1)])
    again = embed(other).float()
    assert torch.equal(again[0], embedded[3]) and torch.equal(again[7], embedded[2])
    assert torch.equal(embed(frames).float(), embedded)
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())


@pytest.fixture
def machine(monkeypatch):
    """Says what is installed."""

    def has(openvino: bool, compiler: bool) -> None:
        monkeypatch.setattr(backends, "_openvino_installed", lambda: openvino)
        monkeypatch.setattr(runtime, "has_compiler", lambda: compiler)

    return has


@pytest.mark.parametrize(
    ("openvino", "compiler", "device", "frames", "size", "name"),
    [
        (True, True, CPU, 600, 224, "openvino"),
        (True, True, CPU, 599, 224, "eager"),
        (True, True, CPU, 600, 112, "eager"),
        (True, True, CPU, 2400, 112, "openvino"),
        (False, True, CPU, 5000, 224, "compile"),
        (False, True, CPU, 4999, 224, "eager"),
        (False, False, CPU, 10**6, 224, "eager"),
        (True, True, GPU, 10**6, 224, "eager"),
    ],
)
def test_auto_picks_by_device_installation_and_length(machine, openvino, compiler, device, frames, size, name):
    machine(openvino, compiler)
    choice = choose_backend("auto", None, frames, size, device)
    assert choice.name == name and choice.reason
    # What was recorded, and what is asked for, go before.
    assert choose_backend("auto", "eager", frames, size, device).name == "eager"
    assert choose_backend("eager", "compile", frames, size, device).name == "eager"


def test_openvino_that_is_not_installed_is_named(machine):
    machine(False, True)
    for wanted, recorded in (("openvino", None), ("auto", "openvino")):
        with pytest.raises(ConfigError, match=r"is not installed: pip install 'fercache\[openvino\]'"):
            choose_backend(wanted, recorded, 10**6, 224, CPU)
