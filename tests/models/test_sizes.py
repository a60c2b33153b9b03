"""The numbers of networks, which are counted on the meta device."""

from __future__ import annotations

import pytest

from fercache.models.backbones import backbone_of_arch
from fercache.models.heads import HEADS, head_numbers


def test_the_published_numbers_of_parameters():
    """ResNet50 without its classifier: 23,508,032 parameters; VGG-Face up to fc7: 134,260,544."""
    resnet, vggface = backbone_of_arch("resnet50"), backbone_of_arch("vggface")
    # Batch norms keep their statistics, too.
    assert resnet.embedding_dim == 2048 and resnet.numbers == pytest.approx(23_508_032, rel=0.003)
    assert (vggface.embedding_dim, vggface.numbers) == (4096, 134_260_544)


def test_heads_by_hand():
    assert head_numbers("linear", 7, 2048) == 7 * 2048 + 7 and head_numbers("mean", 7, 2048) == 0
    assert all(head_numbers(name, 7, 4096) >= head_numbers(name, 7, 2048) for name in HEADS)
