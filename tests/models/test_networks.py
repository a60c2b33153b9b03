from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from fercache.errors import WeightsError
from fercache.models.backbones import BACKBONES, get_backbone
from fercache.models.frame_network import FrameNetwork
from fercache.models.preprocessing import VGGFACE2, Preprocessing, prepare
from fercache.models.transformer import sinusoidal_encoding

RANDOM = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def frame_network():
    torch.manual_seed(0)
    return FrameNetwork(get_backbone("resnet50-vggface2"), 7).eval()


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_batch_of_frames_equals_its_frames_one_by_one(frame_network):
    x = torch.randn(3, 3, 64, 64, generator=RANDOM) * 60
    close(frame_network(x), torch.cat([frame_network(one[None]) for one in x]))
    order = [2, 0, 1]
    close(frame_network(x[order]), frame_network(x)[order])


@torch.inference_mode()
def test_the_logits_are_the_classifier_of_the_embedding(frame_network):
    x = torch.randn(2, 3, 64, 64, generator=RANDOM)
    close(frame_network(x), frame_network.classifier(frame_network.embed(x)))


def test_the_encoding_by_hand():
    table = sinusoidal_encoding(9, 8)
    assert table.shape == (9, 8)
    for position in range(9):
        for i in range(4):
            angle = position / 10_000 ** (2 * i / 8)
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_preprocessing_by_hand():
    frame = torch.tensor([255, 0, 100], dtype=torch.uint8)[:, None, None].expand(3, 224, 224)[None]
    x = prepare(frame, VGGFACE2)
    assert x.shape == (1, 3, 224, 224) and x.dtype == torch.float32
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([255 - 131.0912, -103.8827, 100 - 91.4953]))
    bgr = Preprocessing("BGR", 1.0, (0.5, 0.5, 0.5), (0.25, 0.25, 0.5), 224)
    torch.testing.assert_close(prepare(frame, bgr)[0, :, 0, 0], torch.tensor([(100 / 255 - 0.5) * 4, -2.0, 1.0]))


def test_resizing_is_bilinear_and_not_rounded():
    frame = torch.randint(0, 256, (1, 3, 112, 112), dtype=torch.uint8, generator=RANDOM)
    plain = Preprocessing("RGB", 255.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 224)
    x = prepare(frame, plain)
    expected = functional.interpolate(frame.float(), (224, 224), mode="bilinear", align_corners=False)
    torch.testing.assert_close(x, expected)
    assert (x % 1).abs().max() > 0.1


def test_frames_of_several_sizes_equal_each_alone():
    frames = [torch.randint(0, 256, (3, s, s), dtype=torch.uint8, generator=RANDOM) for s in (112, 60, 300)]
    together = prepare(frames, VGGFACE2)
    assert together.shape == (3, 3, 224, 224)
    torch.testing.assert_close(together[2:], prepare(frames[2][None], VGGFACE2))


def test_the_record_survives_a_checkpoint():
    assert Preprocessing.from_plain(VGGFACE2.as_plain()) == VGGFACE2
    with pytest.raises(WeightsError, match="not one"):
        Preprocessing.from_plain({"mean": [1, 2, 3], "std": [1, 1, 1], "colour": "RGB"})


@pytest.mark.parametrize(
    ("name", "embedding_dim", "parameters"),
    [("resnet50-vggface2", 2048, 23_508_032), ("resnet50-imagenet", 2048, 23_508_032), ("vggface", 4096, 134_260_544)],
)
def test_sizes_are_counted_and_are_those_that_are_known(name, embedding_dim, parameters):
    """torchvision documents 25,557,032 and 138,357,544 parameters with classifiers of 1000 classes."""
    backbone = get_backbone(name)
    assert backbone.embedding_dim == embedding_dim
    with torch.device("meta"):
        network = backbone.build()
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert parameters + 1000 * (embedding_dim + 1) in (25_557_032, 138_357_544)
    assert backbone.numbers == parameters + sum(buffer.numel() for buffer in network.buffers())


def test_asking_for_a_size_draws_no_random_number():
    before = torch.get_rng_state()
    for entry in BACKBONES.values():
        assert replace(entry.load()).embedding_dim > 0
    assert torch.equal(torch.get_rng_state(), before)
