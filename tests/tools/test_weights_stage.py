"""`weights inspect`: what a file is, and what the statistics it kept say about its preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.frames import write_video
from support.weight_files import bgr, dag_tensors, python2_pickle, torchvision_names, vggface_tensors
from torch.nn import functional

from fercache.cli import main
from fercache.data.loader import FrameLoader
from fercache.data.manifest import read_manifest
from fercache.errors import DataError
from fercache.models.backbones import get_backbone
from fercache.models.frame_network import FrameNetwork
from fercache.models.preprocessing import IMAGENET, VGGFACE2, Preprocessing, prepare
from fercache.models.selftest import AxisResult, SelfTest, candidates, self_test
from fercache.tools.weights import _drawn_faces, _fitting_formats, describe_weights, inspect_weights

SIZE = 64
CANDIDATES = {str(candidate): candidate for candidate in candidates(SIZE)}


@pytest.fixture(scope="module")
def drawn():
    return _drawn_faces()[::4]


@pytest.fixture(autouse=True)
def few_faces(monkeypatch):
    monkeypatch.setattr("fercache.tools.weights.FACES", 16)


def filters(seed=0):
    """A first convolution that tells colours apart, as trained ones do."""
    torch.manual_seed(seed)
    conv = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    conv.weight.data += torch.randn(64, 3, 1, 1) * 0.1
    return conv


def kept_statistics(conv, frames, record):
    """The batch norm after one pass over these faces in training."""
    norm = torch.nn.BatchNorm2d(64, momentum=1.0)
    with torch.no_grad():
        norm.train()(conv(prepare(frames, record)))
    return norm


def test_there_is_a_candidate_for_each_use():
    assert len(CANDIDATES) == 10
    assert CANDIDATES["RGB, 0-255, minus mean"].record == Preprocessing("RGB", 255.0, VGGFACE2.mean, (1, 1, 1), SIZE)
    flipped = CANDIDATES["BGR, 0-1, ImageNet mean and std"].record
    assert (flipped.mean, flipped.std) == (IMAGENET.mean[::-1], IMAGENET.std[::-1])
    scaled = CANDIDATES["RGB, 0-1, minus mean"].record
    assert scaled.mean == pytest.approx([value / 255 for value in VGGFACE2.mean])


@pytest.mark.parametrize("name", CANDIDATES)
def test_statistics_of_a_preprocessing_name_it(drawn, name):
    conv = filters()
    norm = kept_statistics(conv, drawn[0::2], CANDIDATES[name].record)
    result = self_test(conv, norm, drawn[1::2], SIZE)
    assert str(result.candidates[0]) == name and result.distances[0] < 0.02 and result.margin > 0.01
    assert all(choice.conclusive for choice in result.axes)
    assert result.distances == tuple(sorted(result.distances))


def test_statistics_that_tell_nothing_are_not_said_to_tell(drawn):
    """Grey filters give the same in either order; the order cannot be told, scale and mean can."""
    conv = filters()
    conv.weight.data[:] = conv.weight.data.mean(1, keepdim=True)
    record = CANDIDATES["RGB, 0-255, no mean"].record
    result = self_test(conv, kept_statistics(conv, drawn[0::2], record), drawn[1::2], SIZE)
    assert {choice.axis: choice.conclusive for choice in result.axes} == {"order": False, "scale": True, "mean": True}


def test_the_distance_by_hand():
    """One white and one black face through a filter that passes the red of a pixel."""
    conv = torch.nn.Conv2d(3, 1, 1, bias=False)
    conv.weight.data[:] = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    norm = torch.nn.BatchNorm2d(1)
    norm.running_mean[:], norm.running_var[:] = 100.0, 400.0
    faces = [torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 255)]
    result = self_test(conv, norm, faces, 8)
    index = [str(one) for one in result.candidates].index("RGB, 0-255, no mean")
    mean, variance = 127.5, 127.5**2
    expected = 0.5 * (variance / 400 + (mean - 100) ** 2 / 400 - 1 - np.log(variance / 400))
    assert result.distances[index] == pytest.approx(expected, rel=1e-6)


def run(*words):
    result = CliRunner().invoke(main, ["weights", *map(str, words)])
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    plain = torchvision_names(dag_tensors(people=5))
    torch.save(dag_tensors(people=5), folder / "dag.pth")
    torch.save(plain, folder / "torchvision.pth")
    (folder / "weight.pkl").write_bytes(python2_pickle(bgr(plain)))
    torch.save(vggface_tensors(people=5), folder / "vgg.pth")
    return folder


def test_inspect_prints_every_key_and_the_facts(folder):
    text = run("inspect", folder / "dag.pth").output
    mapping = [line for line in text.splitlines() if " -> " in line]
    assert len(mapping) == 267
    assert [line.split()[0] for line in mapping if "dropped" in line] == ["classifier.weight", "classifier.bias"]
    assert any(
        line.split() == ["conv1_7x7_s2.weight", "->", "conv1.weight", "(64,", "3,", "7,", "7)"] for line in mapping
    )
    for words in (
        "format         dag",
        "architecture   resnet50-vggface2",
        "classes: 5, dropped",
        "RGB, 0-255, minus (131.091, 103.883, 91.4953), over (1, 1, 1), 224 px",
        "drawn ones",
        "What this cannot show",
    ):
        assert words in text
    other = run("inspect", folder / "weight.pkl").output
    assert "format         pkl" in other
    assert [line for line in text.splitlines() if line.startswith("digest")] == [
        line for line in other.splitlines() if line.startswith("digest")
    ]


def test_a_file_whose_statistics_contradict_its_record_is_not_to_be_trusted(tmp_path, drawn):
    tensors = dag_tensors(people=5)
    conv = filters()
    norm = kept_statistics(conv, drawn, [*candidates(224)][3].record)
    tensors["conv1_7x7_s2.weight"] = conv.weight.data
    for part in ("running_mean", "running_var"):
        tensors[f"conv1_7x7_s2_bn.{part}"] = getattr(norm, part)
    torch.save(tensors, tmp_path / "scaled.pth")
    text = run("inspect", tmp_path / "scaled.pth").output
    assert "the record says 0-255: DO NOT TRUST THIS FILE" in text
    assert "Best-fitting: RGB, 0-1, minus mean" in text


def test_an_undecided_file_is_inspected_and_told_what_speaks(folder):
    text = run("inspect", folder / "torchvision.pth").output
    assert "format         torchvision-vggface2 or torchvision-vggface2-bgr or torchvision-imagenet" in text
    assert "These statistics fit --format " in text and "DO NOT TRUST" not in text
    assert (
        "format         torchvision-imagenet\n"
        in run("inspect", folder / "torchvision.pth", "--format", "torchvision-imagenet").output
    )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"scale": True, "order": True}, "fit --format torchvision-vggface2-bgr."),
        ({"scale": True, "order": False}, "torchvision-vggface2 or torchvision-vggface2-bgr; faces like those of its"),
        ({"scale": False, "order": True}, "fit --format torchvision-vggface2-bgr."),
        ({"scale": False, "order": False}, "torchvision-imagenet or torchvision-vggface2 or torchvision-vggface2-bgr;"),
    ],
)
def test_what_is_not_told_is_not_advised(told, words):
    values = {"scale": "0-255", "order": "BGR", "mean": "minus mean"}
    choices = [AxisResult(axis, value, "?", 1.0, float(told.get(axis, True)), 0.1) for axis, value in values.items()]
    every = tuple(CANDIDATES.values())
    assert words in _fitting_formats(SelfTest(every, tuple(range(10)), tuple(choices), 2))


def test_what_keeps_no_statistics_has_no_test(folder):
    text = run("inspect", folder / "vgg.pth").output
    assert "No self-test: statistics" in text and "has no batch norm" in text and "conv5_3.weight" in text
    text = run("inspect", "none").output
    assert "were never trained" in text and "DO NOT TRUST" not in text


def test_convert_and_its_refusals(folder, tmp_path):
    assert run("convert", folder / "weight.pkl", tmp_path / "own.pt").exit_code == 0
    text = run("inspect", tmp_path / "own.pt").output
    assert "format         fercache-backbone" in text and "classes: none" in text
    refused = run("convert", folder / "torchvision.pth", tmp_path / "other.pt")
    assert refused.exit_code == 1 and "--format" in refused.output and not (tmp_path / "other.pt").exists()
    assert run("inspect", tmp_path / "nothing.pth").exit_code == 1


def test_faces_of_a_folder_and_of_a_manifest(tmp_path):
    write_video(tmp_path / "set", "a", range(1, 7), [0, 1, -1, 0, 0, -1])
    torch.save(dag_tensors(people=5), tmp_path / "dag.pth")
    dag = str(tmp_path / "dag.pth")
    faces = inspect_weights(dag, faces=tmp_path / "set" / "cropped_aligned")
    assert faces.test.faces == 6 and str(tmp_path) in describe_weights(faces)
    (tmp_path / "m.csv").write_text(
        "# fercache-manifest 1\n# task: expr\n# root: set\nvideo_id,split,frames_dir,labels_path,num_frames,group\n"
        "a,train,cropped_aligned/a,annotations/EXPR_Set/Train_Set/a.txt,6,a\n"
    )
    assert inspect_weights(dag, faces=tmp_path / "m.csv").test.faces == 4  # the labelled ones
    (tmp_path / "set" / "cropped_aligned" / "a" / "00002.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"00002\.jpg: is empty"):
        inspect_weights(dag, faces=tmp_path / "set")
    with pytest.raises(DataError, match="has 0 images, expected at least 2"):
        inspect_weights(dag, faces=tmp_path / "set" / "annotations")


TRAINED_WITH = (
    "RGB, 0-255, minus mean",
    "BGR, 0-255, minus mean",
    "RGB, 0-1, no mean",
    "BGR, 0-1, no mean",
    "RGB, 0-1, ImageNet mean and std",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED_WITH)
def test_the_preprocessing_of_a_network_trained_on_real_faces_is_named(realfaces, tmp_path, name):
    """Trained on some people with a rate that falls, as in every recipe, and asked with the faces of others."""
    manifest = CliRunner().invoke(
        main, ["manifest", "affwild2", str(realfaces), "--task", "expr", "-o", str(tmp_path / "m.csv")]
    )
    assert manifest.exit_code == 0
    train, labels = labelled_faces(tmp_path / "m.csv", "train", 480)
    others, _ = labelled_faces(tmp_path / "m.csv", "validation", 128)
    torch.manual_seed(0)
    network = FrameNetwork(get_backbone("resnet50-vggface2"), 7).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9)
    for step in range(50):
        if step == 20:
            optimizer.param_groups[0]["lr"] = 1e-5
        chosen = torch.randperm(len(train))[:24]
        logits = network(prepare([train[place] for place in chosen], CANDIDATES[name].record))
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels[chosen]).backward()
        optimizer.step()
    test = self_test(network.backbone.conv1, network.backbone.bn1, others, SIZE)
    print(name, test.distances[:2], [(c.axis, c.best, round(c.margin, 4), c.share, c.conclusive) for c in test.axes])
    assert str(test.candidates[0]) == name
    conclusive = {choice.axis: choice.conclusive for choice in test.axes}
    assert conclusive["scale"] and conclusive["mean"]


def labelled_faces(manifest, split, count):
    data = read_manifest(manifest, frames=True)
    paths, labels = [], []
    for video in data.split(split):
        frames = video.frames()
        annotations = video.labels(data.task)[frames.frame - 1]
        keep = np.flatnonzero(data.task.labelled(annotations))
        paths += [frames.paths[row] for row in keep]
        labels += annotations[keep].tolist()
    places = np.linspace(0, len(paths) - 1, count).astype(int)
    (batch,) = FrameLoader([paths[place] for place in places], [list(range(count))], 0)
    return list(batch.frames), torch.tensor([labels[place] for place in places])
