"""The pass over the validation samples, which the ranks share.

Legend: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from fercache import runtime
from fercache.data.datasets import share_of
from fercache.errors import RunError
from fercache.training.engine import Batch, infer


def validation_logits(
    network: nn.Module,
    batches: Iterable[Batch],
    count: int,
    precision: str,
    check: Callable[[], None],
    describe: Callable[[list[int]], list[str]],
) -> np.ndarray:
    """The logits of all N = `count` validation samples, float32 (N, C), on every rank.

    `batches` are those of this rank's `share_of` the samples, in order. Each sample counts once, whatever
    the number of ranks. Raises RunError where some logits are not finite, with the samples' names by
    `describe`.
    """
    ranks = runtime.ranks()
    share = infer(network, batches, lambda: runtime.autocast(precision), check)  # (share, C)
    logits = np.empty((count, share.shape[1]), np.float32)
    for rank, rows in enumerate(ranks.gather(torch.from_numpy(share)).numpy()):
        logits[share_of(count, rank, ranks.count)] = rows
    broken = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(broken):
        names = "\n".join(describe(broken[:20].tolist()))
        raise RunError(
            f"the network gives no finite numbers for {len(broken)} of {len(logits)} validation frames: lower the"
            f" learning rate, clip the gradient or compute in fp32; the first:\n{names}"
        )
    return logits
