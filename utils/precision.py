"""The number formats that the network computes in: float32, bfloat16 or float16."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch

from ytvis.files import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def check_precision(precision: str, device: torch.device) -> None:
    """Raises InputError if `device` cannot run the network in `precision`, one of `PRECISIONS`."""
    if precision == "fp16" and device.type != "cuda":
        raise InputError(f"--precision=fp16 needs a GPU, this is {device}; pass --precision=fp32 or bf16")


def autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager]:
    """Returns a function that creates the context in which a network with float32 weights runs in `precision`."""
    dtype = PRECISIONS[precision]
    return partial(torch.autocast, device.type, dtype, enabled=dtype != torch.float32)
