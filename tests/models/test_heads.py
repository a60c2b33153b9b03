"""The heads: sizes, time order, and the middle output against whole windows."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import relative_error
from torch import nn

from fercache.data import windows
from fercache.errors import ConfigError, WeightsError
from fercache.models.backbones import get_backbone
from fercache.models.heads import HEADS, get_head
from fercache.models.temporal import (
    EndToEnd,
    IndexedWindows,
    MiddleOutput,
    Standardise,
    TemporalNetwork,
    network_of,
)

RANDOM = torch.Generator().manual_seed(0)
SMALL = {
    "gru": [{"hidden": 24, "layers": layers} for layers in (1, 2, 3)],
    "transformer": [{"hidden": 24, "layers": layers, "attention_heads": 3, "feed_forward": 40} for layers in (1, 2, 3)],
    "linear": [{}],
    "mean": [{}],
}
WIDTH = 16


def make(name, sizes):
    torch.manual_seed(1)
    network = get_head(name)(7, WIDTH, **sizes).eval()
    for parameter in network.parameters():  # biases of zero would hide a forgotten one
        nn.init.normal_(parameter, std=0.3)
    return network


EVERY = [(name, make(name, sizes)) for name, choices in SMALL.items() for sizes in choices]
every_head = pytest.mark.parametrize("head", [pytest.param(head, id=name) for name, head in EVERY])
in_time = pytest.mark.parametrize(
    "head", [pytest.param(head, id=name) for name, head in EVERY if name in ("gru", "transformer")]
)


present_frames = st.lists(st.integers(1, 90), min_size=1, max_size=50, unique=True).map(sorted).map(np.array)


@every_head
@settings(max_examples=40)
@given(frame=present_frames, length=st.sampled_from([1, 3, 5, 9, 11, 15]))
@torch.inference_mode()
def test_the_middle_output_is_that_of_the_whole_window(head, frame, length):
    """With gaps and ends as they come, and any odd length."""
    rows, _ = windows.rows(frame, frame, length)
    embeddings = torch.randn(len(frame), WIDTH, generator=RANDOM)
    index = torch.from_numpy(rows)
    whole = head(embeddings[index])[:, length // 2]
    assert whole.shape == (len(frame), 7) or head.__class__.__name__ == "MeanHead"
    assert relative_error(head.middle(embeddings, index), whole) < 1e-5


@pytest.mark.parametrize("name", HEADS)
@torch.inference_mode()
def test_the_middle_output_at_full_size(name):
    torch.manual_seed(2)
    head = get_head(name)(7).eval()
    embeddings = torch.randn(60, 2048, generator=RANDOM).relu()
    index = torch.from_numpy(windows.rows(np.arange(1, 61), np.arange(1, 61), 9)[0])
    assert relative_error(head.middle(embeddings, index), head(embeddings[index])[:, 4]) < 1e-5


@in_time
@torch.inference_mode()
def test_time_order_matters(head):
    x = torch.randn(3, 9, WIDTH, generator=RANDOM)
    whole, index = head(x)[:, 4], torch.arange(27).view(3, 9)
    assert (whole - head(x.flip(1))[:, 4]).abs().max() > 1e-3
    rows = x.flatten(0, 1)
    assert (head.middle(rows, index) - head.middle(rows, index.flip(1))).abs().max() > 1e-3


@every_head
@torch.inference_mode()
def test_batch_order_does_not(head):
    x, index = torch.randn(6, 9, WIDTH, generator=RANDOM), torch.arange(54).view(6, 9)
    order = torch.tensor([3, 1, 0, 5, 2, 4])
    torch.testing.assert_close(head(x[order]), head(x)[order], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head(x)[:1], head(x[:1]), rtol=1e-5, atol=1e-5)
    rows = x.flatten(0, 1)
    torch.testing.assert_close(head.middle(rows, index[order]), head.middle(rows, index)[order], rtol=1e-5, atol=1e-5)


def test_the_mean_by_hand():
    head = get_head("mean")(2, 2)
    rows = torch.tensor([[0.0, 2.0], [1.0, 0.0], [5.0, 1.0]])
    middle = head.middle(rows, torch.tensor([[0, 0, 1], [0, 1, 2]]))
    torch.testing.assert_close(middle, torch.tensor([[1 / 3, 4 / 3], [2.0, 1.0]]))
    assert not list(head.parameters())


def test_the_linear_head_sees_its_frame_alone():
    head, rows = make("linear", {}), torch.randn(5, WIDTH, generator=RANDOM)
    middle = head.middle(rows, torch.tensor([[0, 2, 4], [4, 2, 1]]))
    torch.testing.assert_close(middle[0], middle[1])
    torch.testing.assert_close(middle[0], head.classifier(rows[2]))


def test_sizes_are_those_of_the_paper():
    gru, transformer = get_head("gru")(7), get_head("transformer")(7)
    assert (gru.gru.num_layers, gru.gru.hidden_size, gru.gru.bidirectional) == (2, 384, True)
    assert gru.projection.weight.shape == transformer.projection.weight.shape == (768, 2048)
    layer = transformer.encoder.layers[0]
    assert len(transformer.encoder.layers) == 2 and layer.self_attn.num_heads == 12
    assert layer.linear1.out_features == 3072 and layer.norm_first and layer.dropout.p == 0.5


def test_an_unknown_head_lists_the_known():
    with pytest.raises(ConfigError, match="'lstm', expected one of gru, transformer, linear, mean"):
        get_head("lstm")


def test_standardising_by_hand():
    record = Standardise(3)
    record.set(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 0.0, 0.5]))
    torch.testing.assert_close(record(torch.tensor([3.0, 5.0, 3.5])), torch.tensor([1.0, 3.0, 1.0]))


def test_a_network_comes_back_from_its_checkpoint(tmp_path):
    network = TemporalNetwork(get_head("linear")(7, WIDTH), Standardise(WIDTH))
    network.standardise.set(torch.rand(WIDTH), torch.rand(WIDTH))
    checkpoint = {"head": "linear", "train_prior": [0] * 7, "embedding_dim": WIDTH, "model": network.state_dict()}
    windows_ = IndexedWindows(torch.randn(4, WIDTH, generator=RANDOM), torch.tensor([[0, 1, 2], [1, 2, 3]]))
    output = MiddleOutput(network_of(tmp_path, checkpoint))(windows_)
    torch.testing.assert_close(output, network.middle(windows_), rtol=0, atol=0)
    with pytest.raises(WeightsError, match="does not hold its head"):
        network_of(tmp_path, {**checkpoint, "head": "gru"})


@pytest.fixture
def end_to_end():
    torch.manual_seed(3)
    backbone = get_backbone("resnet50-vggface2").build()
    return EndToEnd(backbone, get_head("gru")(7, hidden=24))


def test_batch_norm_keeps_its_statistics(end_to_end):
    before = {name: buffer.clone() for name, buffer in end_to_end.backbone.named_buffers()}
    end_to_end.train()
    frames = IndexedWindows(torch.randn(4, 3, 48, 48, generator=RANDOM), torch.tensor([[0, 1, 2], [1, 2, 3]]))
    assert end_to_end(frames).shape == (2, 3, 7)
    assert all(torch.equal(buffer, before[name]) for name, buffer in end_to_end.backbone.named_buffers())
    # So a frame gives the same embedding whatever it is trained beside.
    alone = end_to_end.embed(frames.rows[:1])
    torch.testing.assert_close(alone, end_to_end.embed(frames.rows)[:1], rtol=1e-4, atol=1e-4)


def gradients(network, frames):
    network.train()
    network.zero_grad()
    network(frames).square().sum().backward()
    return {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }


def test_checkpointing_changes_no_gradient_and_freezing_leaves_the_head_alone(end_to_end):
    frames = IndexedWindows(torch.randn(3, 3, 48, 48, generator=RANDOM), torch.tensor([[0, 0, 1], [0, 1, 2]]))
    plain = gradients(end_to_end, frames)
    assert any(name.startswith("backbone.") for name in plain)
    end_to_end.checkpointing = True
    again = gradients(end_to_end, frames)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-4 * gradient.abs().max().item())
    frozen = EndToEnd(end_to_end.backbone, end_to_end.head, frozen=True)
    computed = gradients(frozen, frames)
    assert computed and not any(name.startswith("backbone.") for name in computed)
    torch.testing.assert_close(computed["head.classifier.weight"], plain["head.classifier.weight"])


def test_the_registry_says_which_heads_learn():
    for entry in HEADS.values():
        assert entry.learns == any(True for _ in entry.load()(2, 4).parameters())


def test_the_names_are_known_without_torch():
    code = "import sys, fercache.models.heads, fercache.models.backbones; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
