"""Weight files in the real formats, made here; the network is checked against its Caffe definition."""

from __future__ import annotations

import os
import pickle

import pytest
import torch
from torch.nn import functional

from fercache.errors import RunError, WeightsError
from fercache.models.checkpoint import FRAME, HEAD, digest, load_checkpoint, load_run, save_checkpoint
from fercache.models.preprocessing import VGGFACE2
from fercache.models.resnet import FrameNetwork
from fercache.models.weights import ARCHITECTURE, load_weights

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
WIDTH = {2: 64, 3: 128, 4: 256, 5: 512}


def dag_tensors(seed=0, people=8631):
    """A state dict as in resnet50_ft_dag.pth: 267 tensors under the dag names, with random values."""
    g = torch.Generator().manual_seed(seed)
    tensors = {}

    def conv_bn(name, out, inside, side):
        tensors[f"{name}.weight"] = torch.randn(out, inside, side, side, generator=g) / (inside * side**2) ** 0.5
        tensors[f"{name}_bn.weight"] = torch.rand(out, generator=g) + 0.5
        tensors[f"{name}_bn.bias"] = torch.randn(out, generator=g) * 0.1
        tensors[f"{name}_bn.running_mean"] = torch.randn(out, generator=g) * 0.1
        tensors[f"{name}_bn.running_var"] = torch.rand(out, generator=g) + 0.5

    conv_bn("conv1_7x7_s2", 64, 3, 7)
    inside = 64
    for stage, blocks in BLOCKS.items():
        for block in range(1, blocks + 1):
            conv_bn(f"conv{stage}_{block}_1x1_reduce", WIDTH[stage], inside, 1)
            conv_bn(f"conv{stage}_{block}_3x3", WIDTH[stage], WIDTH[stage], 3)
            conv_bn(f"conv{stage}_{block}_1x1_increase", 4 * WIDTH[stage], WIDTH[stage], 1)
            if block == 1:
                conv_bn(f"conv{stage}_1_1x1_proj", 4 * WIDTH[stage], inside, 1)
            inside = 4 * WIDTH[stage]
    tensors["classifier.weight"] = torch.randn(people, 2048, 1, 1, generator=g)
    tensors["classifier.bias"] = torch.randn(people, generator=g)
    return tensors


def caffe_embedding(tensors, x):
    """The released definition, written from the dag names alone: (B, 3, S, S) -> (B, 2048)."""

    def conv_bn(x, name, stride=1, padding=0):
        x = functional.conv2d(x, tensors[f"{name}.weight"], stride=stride, padding=padding)
        bn = [tensors[f"{name}_bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *bn, training=False, eps=1e-5)

    x = torch.relu(conv_bn(x, "conv1_7x7_s2", stride=2, padding=3))
    x = functional.max_pool2d(x, 3, 2, padding=0, ceil_mode=True)
    for stage, blocks in BLOCKS.items():
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and stage > 2 else 1
            name = f"conv{stage}_{block}"
            y = torch.relu(conv_bn(x, f"{name}_1x1_reduce", stride=stride))
            y = torch.relu(conv_bn(y, f"{name}_3x3", padding=1))
            y = conv_bn(y, f"{name}_1x1_increase")
            shortcut = conv_bn(x, f"{name}_1x1_proj", stride=stride) if block == 1 else x
            x = torch.relu(y + shortcut)
    return x.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def dag_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet50_ft_dag.pth"
    torch.save(dag_tensors(), path)
    return path


@pytest.mark.parametrize("size", [64, 224])
def test_the_network_is_the_released_one(dag_file, size):
    assert len(dag_tensors()) == 267
    network = load_weights(str(dag_file)).network(7).eval()
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = network.embed(x), caffe_embedding(dag_tensors(), x)
    assert found.shape == (2, 2048) and (found >= 0).all()
    assert (found - expected).norm() / expected.norm() < 1e-5


def test_a_dag_file_brings_its_preprocessing_and_no_classifier(dag_file):
    weights = load_weights(str(dag_file))
    assert weights.preprocessing == VGGFACE2
    assert (weights.classifier, weights.task) == (None, None)
    assert weights.with_image_size(112).preprocessing.image_size == 112


def test_the_first_file_format_of_torch_is_read_too(tmp_path):
    """The released files are from 2018, before torch saved zip archives."""
    path = tmp_path / "old.pth"
    torch.save(dag_tensors(people=3), path, _use_new_zipfile_serialization=False)
    assert load_weights(str(path)).preprocessing == VGGFACE2


def test_equal_networks_have_equal_digests(dag_file, tmp_path):
    weights = load_weights(str(dag_file))
    torch.save(dict(reversed(dag_tensors(people=5).items())), tmp_path / "other.pth")
    assert load_weights(str(tmp_path / "other.pth")).backbone_digest == weights.backbone_digest
    changed = dag_tensors()
    changed["conv3_2_3x3.weight"][0, 0, 0, 0] += 1e-3
    torch.save(changed, tmp_path / "changed.pth")
    assert load_weights(str(tmp_path / "changed.pth")).backbone_digest != weights.backbone_digest


def test_the_digest_by_hand():
    import hashlib

    text = b"a|(2,)|torch.float32|" + bytes([0, 0, 128, 63, 0, 0, 0, 64]) + b"b|()|torch.float32|" + bytes(4)
    tensors = {"b": torch.tensor(0.0), "a": torch.tensor([1.0, 2.0]), "x.num_batches_tracked": torch.tensor(7)}
    assert digest(tensors) == hashlib.sha256(text).hexdigest()


def checkpoint_of(network, task="expr", classes=7):
    return {
        "architecture": ARCHITECTURE,
        "task": task,
        "preprocessing": {**VGGFACE2.as_plain(), "image_size": 112},
        "train_prior": [1 / classes] * classes,
        "select": "best",
        "history": [],
        "model": network.state_dict(),
    }


def test_our_checkpoint_comes_back_whole(dag_file, tmp_path):
    weights = load_weights(str(dag_file))
    torch.manual_seed(0)
    network = weights.network(7).eval()
    save_checkpoint(tmp_path / "best.pt", FRAME, checkpoint_of(network))
    again = load_weights(str(tmp_path / "best.pt"))
    assert again.backbone_digest == weights.backbone_digest
    assert (again.task, again.preprocessing.image_size) == ("expr", 112)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again.network(7).eval()(x), network(x), rtol=0, atol=0)


def changed(change):
    tensors = dag_tensors(people=2)
    change(tensors)
    return tensors


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: changed(lambda t: t.pop("conv4_3_3x3.weight")), "1 tensors are missing"),
        (lambda: changed(lambda t: t.update(extra=torch.zeros(1))), "1 tensors are too many"),
        (lambda: changed(lambda t: t.update({"conv1_7x7_s2.weight": torch.zeros(64, 3, 3, 3)})), "found shape (64, 3"),
        (lambda: changed(lambda t: t["conv1_7x7_s2.weight"].fill_(float("nan"))), "not finite"),
        (lambda: {f"features.{i}.weight": torch.zeros(1) for i in range(26)}, "tensors are missing"),
        (lambda: FrameNetwork(7).backbone.state_dict(), "conv1_7x7_s2.weight"),
        (lambda: {"state_dict": dag_tensors(people=2)}, "too many for the VGGFace2 ResNet50: state_dict"),
        (lambda: [torch.zeros(1)], "holds list"),
    ],
    ids=["key missing", "key too many", "shape", "nan", "another architecture", "torchvision", "nested", "list"],
)
def test_other_files_are_refused_by_name(tmp_path, content, words):
    path = tmp_path / "w.pth"
    torch.save(content(), path)
    with pytest.raises(WeightsError) as caught:
        load_weights(str(path))
    assert words in str(caught.value) and str(path) in str(caught.value)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_an_arbitrary_pickle_is_refused_and_not_run(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pkl"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"x": Evil()}, protocol=2))
    else:
        torch.save({"x": Evil()}, path)
    with pytest.raises(WeightsError, match="was not opened, since a pickle can run code"):
        load_weights(str(path))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_cut_files_are_refused(tmp_path, share, zipped):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1000), "b": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(WeightsError) as caught:
        load_weights(str(path))
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(str(tmp_path / "none.pth"))
    with pytest.raises(RunError, match=r"it has no best\.pt"):
        load_weights(str(tmp_path))


def test_a_head_is_no_frame_network(tmp_path):
    save_checkpoint(tmp_path / "best.pt", HEAD, {"model": {}})
    with pytest.raises(WeightsError, match="holds a head network, expected a frame network"):
        load_run(tmp_path, FRAME)
    torch.save({"a": 1}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no checkpoint of fercache"):
        load_checkpoint(tmp_path / "x.pt")


def test_zero_init_residual_makes_the_blocks_identities():
    plain, zero = load_weights("none").backbone, load_weights("none", zero_init_residual=True).backbone
    gains = [name for name in plain if name.endswith("bn3.weight")]
    assert len(gains) == 16
    assert all(plain[name].min() == 1 and zero[name].abs().max() == 0 for name in gains)


def test_random_weights_depend_on_the_seed():
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        digests.append(load_weights("none").backbone_digest)
    assert digests[0] == digests[1] != digests[2]
