from __future__ import annotations

import pytest
from fercache.tools.sizes import backbone_size, head_size

from fercache.models.heads import HEADS


def test_the_published_numbers_of_parameters():
    """ResNet50 without its classifier: 23,508,032 parameters; VGG-Face up to fc7: 134,260,544."""
    dim, numbers = backbone_size("resnet50")
    assert dim == 2048 and numbers == pytest.approx(23_508_032, rel=0.003)  # batch norms keep their statistics, too
    assert backbone_size("vggface") == (4096, 134_260_544)


def test_heads_by_hand():
    assert head_size("linear", 7, 2048) == 7 * 2048 + 7 and head_size("mean", 7, 2048) == 0
    assert all(head_size(name, 7, 4096) >= head_size(name, 7, 2048) for name in HEADS)
