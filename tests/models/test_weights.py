"""Weight files in the real formats, made here; each network is checked against its format's own description."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from hashlib import sha256

import h5py
import numpy as np
import pytest
import torch
import torchvision
from support.runs import relative_error
from support.weight_files import (
    bgr,
    dag_forward,
    dag_tensors,
    python2_pickle,
    torchvision_forward,
    torchvision_names,
    vggface_forward,
    vggface_tensors,
)
from torch.nn import functional

from fercache.errors import ConfigError, FercacheError, RunError, WeightsError
from fercache.models.backbones import get_backbone
from fercache.models.checkpoint import BACKBONE, FRAME, HEAD, digest, load_checkpoint, load_run, save_checkpoint
from fercache.models.numpy_pickle import read_numpy_pickle
from fercache.models.preprocessing import IMAGENET, VGGFACE, VGGFACE2, prepare
from fercache.models.weights import load_weights
from fercache.tools.weights import convert_weights

RESNET = get_backbone("resnet50-vggface2")
PEOPLE = 5


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One network of each kind in all the formats it comes in."""
    folder = tmp_path_factory.mktemp("weights")
    dag = dag_tensors(people=PEOPLE)
    plain = torchvision_names(dag)
    torch.save(dag, folder / "resnet50_ft_dag.pth")
    (folder / "resnet50_ft_weight.pkl").write_bytes(python2_pickle(bgr(plain)))
    torch.save(plain, folder / "torchvision.pth")
    torch.save(bgr(plain), folder / "torchvision_bgr.pth")
    torch.save(vggface_tensors(people=PEOPLE), folder / "vgg_face_dag.pth")
    convert_weights(folder / "resnet50_ft_weight.pkl", folder / "converted.pt")
    return folder


FACES = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).float()
FACE_MEAN = torch.tensor([131.0912, 103.8827, 91.4953])[:, None, None]
PHOTO = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))


def vggface2_input(frames=FACES):
    return functional.interpolate(frames, (224, 224), mode="bilinear", align_corners=False) - FACE_MEAN


def expected_dag():
    return dag_forward(dag_tensors(people=PEOPLE), vggface2_input())


def expected_pkl():
    return torchvision_forward(bgr(torchvision_names(dag_tensors(people=PEOPLE))), vggface2_input().flip(1), caffe=True)


def expected_imagenet():
    pixels = functional.interpolate(FACES, (224, 224), mode="bilinear", align_corners=False) / 255
    x = (pixels - PHOTO[0][:, None, None]) / PHOTO[1][:, None, None]
    return torchvision_forward(torchvision_names(dag_tensors(people=PEOPLE)), x)


def expected_vggface():
    x = functional.interpolate(FACES, (224, 224), mode="bilinear", align_corners=False)
    x = x - torch.tensor([129.1863, 104.7624, 93.5940])[:, None, None]
    return vggface_forward(vggface_tensors(people=PEOPLE), x)


@torch.inference_mode()
def embeddings(weights):
    """What fercache makes of stored frames with these weights, from uint8 to the embedding."""
    return weights.network(7).eval().embed(prepare(FACES.to(torch.uint8), weights.preprocessing))


@pytest.mark.parametrize(
    ("name", "form", "expected"),
    [
        ("resnet50_ft_dag.pth", None, expected_dag),
        ("resnet50_ft_weight.pkl", None, expected_pkl),
        ("torchvision.pth", "torchvision-vggface2", expected_dag),
        ("torchvision_bgr.pth", "torchvision-vggface2-bgr", expected_dag),
        ("torchvision.pth", "torchvision-imagenet", expected_imagenet),
        ("vgg_face_dag.pth", None, expected_vggface),
        ("converted.pt", None, expected_dag),
    ],
)
def test_the_features_are_those_of_the_format(files, name, form, expected):
    weights = load_weights(str(files / name), form=form)
    computed = embeddings(weights)
    assert computed.shape == (2, weights.backbone.embedding_dim) and (computed >= 0).all() and computed.norm() > 0
    assert relative_error(computed, expected()) < 1e-5


def test_bgr_and_rgb_files_of_one_network_give_the_same(files):
    pkl, dag = (load_weights(str(files / name)) for name in ("resnet50_ft_weight.pkl", "resnet50_ft_dag.pth"))
    torch.testing.assert_close(embeddings(pkl), embeddings(dag), rtol=0, atol=0)


@torch.inference_mode()
def test_torchvisions_own_network_takes_the_file_and_computes_something_else():
    """Every key and shape fits, and the features are wrong: why there is a form of our own."""
    network = torchvision.models.resnet50(num_classes=PEOPLE).eval()
    network.load_state_dict(torchvision_names(dag_tensors(people=PEOPLE)), strict=False)
    network.fc = torch.nn.Identity()
    assert relative_error(network(vggface2_input()), expected_dag()) > 0.01  # a thousand times the tolerance above


def test_one_network_has_one_digest_in_every_format(files):
    names = ("resnet50_ft_dag.pth", "resnet50_ft_weight.pkl", "converted.pt")
    digests = {load_weights(str(files / name)).backbone_digest for name in names}
    forms = {"torchvision.pth": "torchvision-vggface2", "torchvision_bgr.pth": "torchvision-vggface2-bgr"}
    digests |= {load_weights(str(files / name), form=form).backbone_digest for name, form in forms.items()}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "form", "architecture", "preprocessing"),
    [
        ("resnet50_ft_dag.pth", None, "resnet50-vggface2", VGGFACE2),
        ("resnet50_ft_weight.pkl", None, "resnet50-vggface2", VGGFACE2),
        ("torchvision.pth", "torchvision-imagenet", "resnet50-imagenet", IMAGENET),
        ("vgg_face_dag.pth", None, "vggface", VGGFACE),
        ("converted.pt", None, "resnet50-vggface2", VGGFACE2),
    ],
)
def test_a_file_brings_its_preprocessing_and_no_classifier(files, name, form, architecture, preprocessing):
    weights = load_weights(str(files / name), form=form)
    assert (weights.backbone.name, weights.preprocessing) == (architecture, preprocessing)
    assert (weights.classifier, weights.task) == (None, None)


def test_torchvisions_names_alone_do_not_decide(files):
    with pytest.raises(WeightsError, match=r"no key tells apart \(its classifier has 5 .*--format: torchvision-"):
        load_weights(str(files / "torchvision.pth"))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "resnet50_ft_dag.pth",
            {"form": "torchvision-imagenet"},
            "--format: found torchvision-imagenet, but .* is dag",
        ),
        ("resnet50_ft_weight.pkl", {"form": "torchvision-vggface2"}, "found torchvision-vggface2, but .* is pkl"),
        ("resnet50_ft_dag.pth", {"zero_init_residual": True}, "zero_init_residual: applies to random weights only"),
        ("converted.pt", {"form": "dag"}, "--format: found dag, but .* is fercache-backbone"),
        ("resnet50_ft_dag.pth", {"form": "caffe"}, "found 'caffe', expected one of dag, pkl, .*vggface-dag"),
        ("resnet50_ft_dag.pth", {"arch": "vggface"}, "--arch: found vggface, but .* holds resnet50-vggface2"),
    ],
)
def test_a_file_that_is_not_what_it_was_called_is_refused(files, name, options, words):
    with pytest.raises(FercacheError, match=words):
        load_weights(str(files / name), **options)


def test_random_weights_are_of_the_family_asked_for():
    assert load_weights("none").backbone.name == "resnet50-vggface2"
    assert load_weights("none", arch="vggface").backbone.name == "vggface"
    with pytest.raises(ConfigError, match="found 'alexnet', expected one of resnet50, vggface"):
        load_weights("none", arch="alexnet")
    with pytest.raises(ConfigError, match="vggface has no residual blocks"):
        load_weights("none", arch="vggface", zero_init_residual=True)


def test_only_networks_that_can_take_another_size(files):
    assert load_weights("none").with_image_size(112).preprocessing.image_size == 112
    vgg = load_weights(str(files / "vgg_face_dag.pth"))
    assert vgg.with_image_size(224) is vgg
    with pytest.raises(ConfigError, match="found 112, but vggface works at 224 alone"):
        vgg.with_image_size(112)


def test_imagenet_is_torchvisions_file_in_torchs_own_folder(files, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    file.parent.mkdir(parents=True)
    torch.save(torchvision_names(dag_tensors(people=1000)), file)
    weights = load_weights("imagenet")
    assert (weights.origin.format, weights.origin.dropped_classes) == ("torchvision-imagenet", 1000)
    assert weights.preprocessing == IMAGENET


def test_imagenet_without_a_network_says_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    with pytest.raises(WeightsError, match=r"resnet50-0676ba61\.pth is missing.*no route.*put the file there"):
        load_weights("imagenet")


def test_conversion_says_what_it_is_and_does_not_overwrite(files, tmp_path):
    content = load_checkpoint(files / "converted.pt", BACKBONE)
    assert content["source"]["format"] == "pkl" and content["source"]["dropped_classes"] == PEOPLE
    assert content["source"]["sha256"] == sha256((files / "resnet50_ft_weight.pkl").read_bytes()).hexdigest()
    assert content["digest"] == load_weights(str(files / "resnet50_ft_dag.pth")).backbone_digest
    before = (files / "converted.pt").read_bytes()
    convert_weights(files / "resnet50_ft_dag.pth", files / "converted.pt")  # the same network
    with pytest.raises(WeightsError, match="exists and is no conversion of"):
        convert_weights(files / "resnet50_ft_weight.pkl", files / "resnet50_ft_dag.pth")  # the same, but no safe file
    with pytest.raises(WeightsError, match="random numbers are no weights to convert"):
        convert_weights("none", files / "random.pt")
    with pytest.raises(WeightsError, match="exists and is no conversion of"):
        convert_weights(files / "vgg_face_dag.pth", files / "converted.pt")
    assert (files / "converted.pt").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(model=[1]), "'model' is list, expected named tensors"),
        (lambda c: c.update(architecture=["resnet50"]), "'architecture' is list, expected text"),
        (lambda c: c.update(architecture="alexnet"), "architecture: found 'alexnet', expected one of"),
        (lambda c: c["preprocessing"].update(mean=["a", "b", "c"]), "range, mean or std"),
        (lambda c: c["preprocessing"].update(image_size="x"), "not one: image_size"),
        (lambda c: c["preprocessing"].update(std=[0.0, 1.0, 1.0]), "range or std"),
        (
            lambda c: c["model"].update({"backbone.bn1.num_batches_tracked": "7"}),
            "'model' is dict, expected named tensors",
        ),
        (
            lambda c: c["model"]["backbone.conv1.weight"].copy_(c["model"]["backbone.conv1.weight"].flip(1)),
            "was changed",
        ),
        (lambda c: c.pop("digest"), "it has no 'digest'"),
    ],
)
def test_a_converted_file_that_was_tampered_with_is_refused(files, tmp_path, change, words):
    content = torch.load(files / "converted.pt")
    change(content)
    torch.save(content, tmp_path / "changed.pt")
    with pytest.raises(WeightsError, match=words):
        load_weights(str(tmp_path / "changed.pt"))


def test_keras_files_are_refused_with_the_reason(tmp_path):
    path = tmp_path / "vggface.h5"
    with h5py.File(path, "w") as file:
        file["conv1/7x7_s2"] = [1.0]
    with pytest.raises(WeightsError, match="computes something else"):
        load_weights(str(path))


def test_the_first_file_format_of_torch_is_read_too(tmp_path):
    """The released files are from 2018, before torch saved zip archives."""
    path = tmp_path / "old.pth"
    torch.save(dag_tensors(people=3), path, _use_new_zipfile_serialization=False)
    assert load_weights(str(path)).preprocessing == VGGFACE2


def test_another_number_is_another_digest(files, tmp_path):
    weights = load_weights(str(files / "resnet50_ft_dag.pth"))
    torch.save(dict(reversed(dag_tensors(people=9).items())), tmp_path / "other.pth")
    torch.save(changed(lambda t: t["conv3_2_3x3.weight"][0, 0, 0, 0].add_(1e-3)), tmp_path / "changed.pth")
    expected = {"other": True, "changed": False}
    for name, same in expected.items():
        digest = load_weights(str(tmp_path / f"{name}.pth")).backbone_digest
        assert (digest == weights.backbone_digest) == same, name


def test_the_digest_by_hand():
    text = b"a|(2,)|torch.float32|" + bytes([0, 0, 128, 63, 0, 0, 0, 64]) + b"b|()|torch.float32|" + bytes(4)
    tensors = {"b": torch.tensor(0.0), "a": torch.tensor([1.0, 2.0]), "x.num_batches_tracked": torch.tensor(7)}
    assert digest(tensors) == sha256(text).hexdigest()


def checkpoint_of(network, task="expr", classes=7):
    return {
        "architecture": RESNET.name,
        "task": task,
        "preprocessing": {**VGGFACE2.as_plain(), "image_size": 112},
        "train_prior": [1 / classes] * classes,
        "select": "best",
        "history": [],
        "model": network.state_dict(),
    }


def test_our_checkpoint_comes_back_whole(files, tmp_path):
    weights = load_weights(str(files / "resnet50_ft_dag.pth"))
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
        (lambda: {f"features.{i}.weight": torch.zeros(1) for i in range(26)}, "its 26 keys (features.0.weight, feat"),
        (lambda: {"state_dict": dag_tensors(people=2)}, "its 1 keys (state_dict) are those of no known format"),
        (lambda: {7: torch.zeros(1)}, "its 1 keys (7) are those"),
        (lambda: [torch.zeros(1)], "holds list"),
        (lambda: changed(lambda t: t.update({"classifier.bias": torch.zeros(2, dtype=torch.int8)})), "torch.int8"),
        (lambda: changed(lambda t: t.update({"classifier.bias": torch.zeros(2).to_sparse()})), "torch.sparse_coo"),
        (
            lambda: changed(lambda t: t.update({"classifier.bias": torch.full((2,), 1e300, dtype=torch.float64)})),
            "not finite",
        ),
        (lambda: changed(lambda t: t["conv1_7x7_s2_bn.running_var"].neg_()), "holds negative variances"),
    ],
    ids=[
        "key missing",
        "key too many",
        "shape",
        "nan",
        "another architecture",
        "nested",
        "number",
        "list",
        "int",
        "sparse",
        "large",
        "variance",
    ],
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


class EvilArray:
    """A call hidden where an array's bytes are expected."""

    def __reduce__(self):
        return np.array([1.0]).__reduce__()[0], (Evil(), (0,), b"b")


def old_torch(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("name", ["w.pkl", "w.pth"])
@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(pickle.dumps({"x": Evil()}, protocol=0)),
        lambda path: path.write_bytes(pickle.dumps({"x": Evil()}, protocol=2)),
        lambda path: path.write_bytes(pickle.dumps({"x": Evil()}, protocol=5)),
        lambda path: path.write_bytes(pickle.dumps({"x": EvilArray()}, protocol=2)),
        lambda path: path.write_bytes(pickle.dumps(np.array([Evil()], dtype=object))),
        lambda path: path.write_bytes(b"cbuiltins\neval\n(Vopen('pwned', 'w')\ntR."),
        lambda path: path.write_bytes(b"cnumpy\ndtype\n}(V__class__\nV1\nub."),
        lambda path: path.write_bytes(b"ccollections\nOrderedDict.__init__.__globals__\n."),
        lambda path: torch.save({"x": Evil()}, path),
        lambda path: old_torch({"x": Evil()}, path),
    ],
)
def test_a_hostile_file_is_refused_and_not_run(tmp_path, monkeypatch, write, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(WeightsError) as caught:
        load_weights(str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["<f4", ">f8", "<f2", "<i8"])
def test_arrays_come_back_from_every_protocol(tmp_path, protocol, kind):
    arrays = {
        "a": np.arange(6, dtype=kind).reshape(2, 3),
        "columns first": np.asfortranarray(np.arange(6, dtype=kind).reshape(2, 3)),
        "none": np.empty((0, 2), dtype=kind),
        "one": np.array(5, dtype=kind),
    }
    path = tmp_path / "arrays.pkl"
    path.write_bytes(pickle.dumps(OrderedDict(arrays), protocol=protocol))
    loaded = read_numpy_pickle(path)
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype


@pytest.mark.parametrize(
    "content",
    [np.zeros(2), {"a": [1.0]}, {1: np.zeros(2)}, {"a": np.array(["text"])}, {"a": np.zeros(2, "c8")}, {"a": None}],
)
def test_pickles_of_other_things_are_refused(tmp_path, content):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(WeightsError, match=str(path)):
        load_weights(str(path))


def test_a_pickle_cannot_claim_memory(tmp_path):
    """An array whose bytes are said to be a number: bytes(10**9) would be that many."""
    code = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I1\ntcnumpy\ndtype\n(Vf4\ntRI00\n"
    )
    (tmp_path / "w.pkl").write_bytes(b"(dVa\n" + code + b"I1000000000\ntbs.")
    with pytest.raises(WeightsError, match="TypeError"):
        load_weights(str(tmp_path / "w.pkl"))


def test_an_array_that_never_gets_its_values_is_refused(tmp_path):
    code = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    (tmp_path / "w.pkl").write_bytes(b"(dVa\n" + code + b"s.")
    with pytest.raises(WeightsError, match="a: expected arrays"):
        load_weights(str(tmp_path / "w.pkl"))


@pytest.mark.parametrize("code", [b"}r\xff\xff\xff\x7f.", b"}p4000000000\n."])
def test_a_pickle_cannot_claim_memory_by_numbering_its_objects(tmp_path, code):
    (tmp_path / "w.pkl").write_bytes(code)
    with pytest.raises(WeightsError, match="numbers an object"):
        load_weights(str(tmp_path / "w.pkl"))


def test_a_pickles_containers_cannot_be_changed(tmp_path):
    (tmp_path / "w.pkl").write_bytes(b"ccollections\nOrderedDict\n(tR}Vitems\nVa\nsb.")
    with pytest.raises(WeightsError, match=r"w\.pkl"):
        load_weights(str(tmp_path / "w.pkl"))


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_pickle_cut_off_is_refused(files, tmp_path, share):
    whole = (files / "resnet50_ft_weight.pkl").read_bytes()
    (tmp_path / "w.pkl").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match=r"w\.pkl: is (damaged|not a file)"):
        load_weights(str(tmp_path / "w.pkl"))


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


def test_a_run_that_is_not_finished_is_refused_and_its_file_is_not(tmp_path):
    save_checkpoint(tmp_path / "best.pt", HEAD, {"model": {}})
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    (tmp_path / "metrics.jsonl").write_text("{}\n{}\n")
    with pytest.raises(RunError, match=r"is not finished: it has 2 of 3 epochs; .* the file .*best\.pt, which"):
        load_run(tmp_path)
    for path in (tmp_path, tmp_path / "best.pt"):
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write("{}\n")
        with pytest.raises(WeightsError, match="is damaged"):
            load_run(path)


def test_a_head_is_no_frame_network(tmp_path):
    save_checkpoint(tmp_path / "best.pt", HEAD, {"model": {}})
    with pytest.raises(WeightsError, match="holds a head network, expected a frame network"):
        load_run(tmp_path, FRAME)
    torch.save({"a": 1}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="no checkpoint of fercache"):
        load_checkpoint(tmp_path / "x.pt")


def test_zero_init_residual_makes_the_blocks_identities():
    plain, zero = load_weights("none").tensors, load_weights("none", zero_init_residual=True).tensors
    gains = [name for name in plain if name.endswith("bn3.weight")]
    assert len(gains) == 16
    assert all(plain[name].min() == 1 and zero[name].abs().max() == 0 for name in gains)


def test_random_weights_depend_on_the_seed():
    digests = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        digests.append(load_weights("none").backbone_digest)
    assert digests[0] == digests[1] != digests[2]
