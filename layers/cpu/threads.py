"""How many threads a loop of our own kernels takes."""

import os

import torch

THREAD_NUMBERS = 32768  # which a further thread must have to pay: what torch takes for its own loops
# The threads of a parallel region do not survive a fork: a child that asked for them would wait for ever.
HOME_PROCESS = os.getpid()


def usable_threads(numbers: int) -> int:
    """Threads for a loop over that many numbers: at most torch's, and one in a forked process."""
    return max(1, min(torch.get_num_threads(), numbers // THREAD_NUMBERS)) if os.getpid() == HOME_PROCESS else 1
