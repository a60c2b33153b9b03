"""How large networks are, told without making one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """What a network makes others as large as."""

    embedding_dim: int
    numbers: int
    """In its checkpoint, beside those of its classifier."""


NETWORKS = {"resnet50": Size(2048, 23_561_205), "vggface": Size(4096, 134_260_544)}
"""By `finetune.arch`."""
HEAD_NUMBERS = {
    "gru": (768, 5_323_783),
    "transformer": (768, 14_183_431),
    "linear": (0, 0),
    "mean": (0, 0),
}
"""Numbers in a head's checkpoint: so many for each of the embedding's, and the rest."""
