"""torch's attention without the kernel of cuDNN, which torch 2.11 and later prefer on an H100 or H200.

Its backward pass may return NaN where a mask is passed and the width leaves 64 when divided by 128
(https://github.com/pytorch/pytorch/issues/196678): a query that is padding has no key at all, which is such a case.
And it is compiled again for every new number of rows and columns. Where every pass is as wide as its own rows need,
and where a cache grows by a column at a time, nearly every shape is new.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_cudnn_attention() -> Iterator[None]:
    """A context, or a decorator, in which torch leaves attention to its other kernels."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
