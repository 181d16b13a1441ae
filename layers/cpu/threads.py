"""The number of threads for the loops of the compiled kernels."""

import os

import torch

THREAD_NUMBERS = 32768  # numbers a thread: with fewer a further thread costs more than it saves, as in torch's loops
# The threads of a parallel region do not survive a fork: a child that uses them waits for ever.
HOME_PROCESS = os.getpid()


def usable_threads(numbers: int) -> int:
    """Threads for a loop over that many numbers: at most torch's number, and one in a forked process."""
    return max(1, min(torch.get_num_threads(), numbers // THREAD_NUMBERS)) if os.getpid() == HOME_PROCESS else 1
