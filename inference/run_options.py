"""Settings for running the network, and their command-line options, shared by all modes of eval.py."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from data.classes import config_for
from data.config import WEIGHT_NAMES, Config, add_config_arguments, get_config, overrides_from
from data.trained import trained_config
from inference.network import Model, Network
from layers.deform_conv import BACKENDS, deform_backend, runs_on
from utils.checkpoint import find_checkpoint
from utils.device import has_spare_core
from utils.precision import PRECISIONS, check_precision
from ytvis.command_line import not_negative, number_in, seed_number
from ytvis.drawing import DISPLAY_SCORE_THRESHOLD
from ytvis.files import InputError

RANDOM_WEIGHTS = "random"
CONFIG_OPTIONS = {  # options that set a config key
    "cross_class_nms": "detection.cross_class_nms",
    "score_threshold": "postprocess.score_threshold",
    "top_k": "postprocess.top_k",
}


@dataclass(frozen=True)
class RunSettings:
    """Settings for running a network. They change its speed and, except for half precision, hardly its results."""

    precision: str = "fp32"
    deform_backend: str = "auto"
    overlap: bool = True
    fused: bool = True
    compiled: bool = False
    batch_size: int = 1
    graphs: bool = False

    @classmethod
    def from_options(cls, options: argparse.Namespace, device: torch.device, batch_size: int = 1) -> Self:
        """Returns the settings of the options of `add_speed_options`.

        Raises:
            InputError: `device` does not support them.
        """
        check_precision(options.precision, device)
        backend = options.deform_backend or "auto"
        with deform_backend(backend):
            pass
        if not runs_on(backend, device):
            place = "a CPU" if backend == "native" else "a GPU"
            raise InputError(f"--deform_backend={backend} runs on {place}, this is {device}")
        overlap = has_spare_core(device) and not options.no_overlap
        graphs = device.type == "cuda" and not options.compile and not options.no_graphs
        compiled = options.compile
        return cls(options.precision, backend, overlap, compiled=compiled, batch_size=batch_size, graphs=graphs)

    def for_journal(self) -> dict[str, str]:
        """The settings that results depend on; {} for the defaults."""
        return {} if self.precision == "fp32" else {"precision": self.precision}

    def network(self, model: Model) -> Network:
        """Returns the `Network` of `model` with these settings."""
        return Network(model, self.precision, self.fused, self.compiled, self.graphs)


@dataclass(frozen=True)
class ModelChoice:
    """A choice of network: that of `config`, with the weights of `checkpoint`, or None for random ones of `seed`."""

    config: Config
    checkpoint: Path | None
    seed: int

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Self:
        """Returns the choice made by the options of `add_model_options` and `add_result_options`.

        Raises:
            InputError: a config, a checkpoint or a value is missing or wrong.
        """
        shortcuts = {key: getattr(options, option) for option, key in CONFIG_OPTIONS.items()}
        overrides = overrides_from(options.set, shortcuts)
        name = get_config(options.config).name if options.config else None
        if options.trained_model and options.trained_model != RANDOM_WEIGHTS:
            checkpoint = find_checkpoint(options.trained_model, WEIGHT_NAMES, name)
            return cls(trained_config(checkpoint, name, overrides), checkpoint, options.seed)
        if name is None:
            missing = "--config=NAME" if options.trained_model else "--trained_model=FILE"
            raise InputError(f"pass {missing}; --help lists the options")
        if not options.trained_model and not options.print_config:
            raise InputError("pass --trained_model=FILE, or --trained_model=random to try the installation")
        return cls(config_for(name, overrides), None, options.seed)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose config, weights and device."""
    add_config_arguments(parser)
    group = parser.add_argument_group("model")
    group.add_argument(
        "--trained_model",
        metavar="FILE",
        help="checkpoint, which selects the config; [FOLDER/]latest, best or interrupt (default folder: weights); "
        "a name of the table in weights/README.md, hf:OWNER/REPO/FILE[@REVISION] or https://…, downloaded once; or "
        "'random' for seeded random weights, to try the installation or measure speed",
    )
    group.add_argument(
        "--seed", type=seed_number, default=0, help="seed of --trained_model=random (default: %(default)s)"
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one; torchrun: one each)")
    group.add_argument(
        "--cross_class_nms",
        metavar="True|False",
        help="one class per candidate in NMS, or class by class (default: the config's, True)",
    )


def add_result_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the options that limit what is reported; returns their group."""
    group = parser.add_argument_group("results")
    group.add_argument(
        "--score_threshold",
        type=number_in(float),
        help="report objects over this score, in all files (default: 0.05)",
    )
    group.add_argument("--top_k", type=not_negative, help="report at most this many objects per frame (default: all)")
    return group


def add_display_threshold(group: argparse._ArgumentGroup) -> None:
    """Adds the option that limits what is drawn, None if it is not given; `display_threshold` gives its value."""
    group.add_argument(
        "--display_score_threshold",
        type=number_in(float),
        help="draw tracks whose score, the mean over the frames so far, is at least this; files keep all objects over "
        f"--score_threshold (default: {DISPLAY_SCORE_THRESHOLD})",
    )


def display_threshold(options: argparse.Namespace) -> float:
    """The score from which on tracks are drawn."""
    given = options.display_score_threshold
    return DISPLAY_SCORE_THRESHOLD if given is None else given


def add_speed_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the options of `RunSettings`; returns their group."""
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="of the network; boxes, scores and overlaps stay float32 (default: fp32; fp16 is for GPUs)",
    )
    group.add_argument(
        "--deform_backend",
        choices=BACKENDS,
        help="which deformable convolution (default: native on a CPU if it is built; on a GPU triton or nvrtc "
        "in half precision; else torchvision)",
    )
    group.add_argument(
        "--compile", action="store_true", help="compile the network with torch.compile, which takes minutes at first"
    )
    group.add_argument(
        "--no_graphs",
        action="store_true",
        help="on a GPU, launch the kernels of every frame one by one instead of replaying CUDA graphs of them; implied "
        "by --compile",
    )
    group.add_argument(
        "--no_overlap",
        action="store_true",
        help="run the network and the work on its results in turns, in one thread; this is the default on a CPU whose "
        "cores all run the network",
    )
    return group


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options for additional content and files beside results.json."""
    group = parser.add_argument_group("more results")
    group.add_argument(
        "--save_details",
        action="store_true",
        help="add to each track 'scores', one a frame, and 'shifted', true where only temporal fusion shows it",
    )
    group.add_argument(
        "--benchmark",
        action="store_true",
        help="print time by stage, memory, frames and operations per second, and write them to "
        "<results>_benchmark.json (your own video: <OUT>_benchmark.json)",
    )
