"""Starts commands as several processes of one group, with torchrun and without."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment() -> dict[str, str]:
    """The environment of a process that computes the same bits as this one: sums depend on the number of threads."""
    import torch  # tests of ytvis alone start programs too, without torch

    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}


def start(line: Sequence[str], **variables: str) -> subprocess.Popen:
    """`python <line>`, running as the head of a process group."""
    command = [sys.executable, *map(str, line)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env={**environment(), **variables}, text=True, start_new_session=True, **pipes)


def start_each(line: Sequence[str], count: int = 2) -> list[subprocess.Popen]:
    """`count` processes of `python <line>` as torchrun would start them, by rank, without torchrun's supervision."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [start(line, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(count)]


def torchrun(line: Sequence[str], count: int = 2) -> subprocess.CompletedProcess:
    """The completed process of `torchrun --nproc_per_node=<count> <line>`."""
    process = start(["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", *line])
    output, errors = process.communicate(timeout=600)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def finish(processes: Sequence[subprocess.Popen], timeout: float = 300) -> list[str]:
    """The stderr of each; if one fails or is late, all are ended and the AssertionError contains what they wrote."""
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes == [0] * len(codes), f"{codes}\n" + "\n".join(text[-3000:] for text in errors)
    return errors
