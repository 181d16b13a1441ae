"""Exports the network of a checkpoint for other runtimes: ONNX, torch.export, OpenVINO.

    python -m tools.export weights/STMask_demo.pth --output exported
    python -m tools.export weights/STMask_demo.pth --output exported --format torch --batch dynamic

Writes into the folder, each file whole or not at all:

network.onnx    images [B,3,H,W] float32 → the fields of `utils.structures.Predictions` that the config has, by name
temporal.onnx   features of the last and of this frame, boxes [N,4] → box regression [N,4], coefficient changes [N,K]
mask_ious.onnx  masks [N,h,w], labels [N] int64 → expected IoU of each mask [N] (YOLACT++)
model.json      classes, preprocessing, thresholds, and the shapes of all inputs and outputs

B is 1 unless --batch=dynamic, N is dynamic. "onnx" has opset 20 with the standard operator DeformConv. "torch" writes
.pt2 files for `torch.export.load`, "openvino" .xml and .bin files. Where the runtime is installed, every file is run on
random input, and its largest relative error against torch is printed and written into model.json.
"""

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inference.network import fused_copy
from inference.tracker_step import make_detector
from layers.deform_conv import deform_backend
from layers.temporal_fusion import fuse
from stmask import STMask
from utils.structures import FusionFeatures
from ytvis.command_line import Parser, number_in, run_command
from ytvis.files import InputError, atomic_write, make_folder
from ytvis.optional import import_extra

logger = logging.getLogger(__name__)

OPSET = 20
MANY = 1 << 10  # most images of a batch, and most objects of a frame
FEATURES = ("pyramid", "shared")  # of `FusionFeatures`


class ExportedNetwork(nn.Module):
    """`STMask.forward` as a flat tuple of the tensors that `names` lists."""

    def __init__(self, model: STMask, names: Sequence[str]):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        predictions = self.model(images)
        values = vars(predictions) | vars(predictions.fusion_features)
        return tuple(values[name] for name in self.names)


class ExportedTemporalNet(nn.Module):
    """The temporal net with the correlation before it."""

    def __init__(self, model: STMask):
        super().__init__()
        self.net, self.patch_size = model.TemporalNet, model.config.temporal_fusion.patch_size

    def forward(self, last_pyramid, last_shared, pyramid, shared, boxes) -> tuple[Tensor, Tensor]:
        fused = fuse(FusionFeatures(last_pyramid, last_shared), FusionFeatures(pyramid, shared), self.patch_size)
        return self.net(fused, boxes)


class ExportedMaskIoUNet(nn.Module):
    """The net that rescores masks in YOLACT++."""

    def __init__(self, model: STMask):
        super().__init__()
        self.net = model.maskiou_net

    def forward(self, masks: Tensor, labels: Tensor) -> tuple[Tensor]:
        return (self.net.of_labels(masks, labels),)


@dataclass(frozen=True)
class Part:
    """A network to export: example `inputs` by name, whose first axis varies where `dynamic` names it."""

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, str]

    @torch.no_grad()
    def export(self) -> torch.export.ExportedProgram:
        """The network as torch.export traces it."""
        axes = {name: torch.export.Dim(name, min=1, max=MANY) for name in set(self.dynamic.values())}
        shapes = tuple({0: axes[self.dynamic[name]]} if name in self.dynamic else None for name in self.inputs)
        return torch.export.export(self.module.eval(), tuple(self.inputs.values()), dynamic_shapes=shapes)

    def describe(self) -> dict[str, Any]:
        """{"inputs": {name: {"shape", "dtype"}}, "outputs": likewise}; an axis that varies has its name as size."""
        with torch.no_grad():
            results = self.module(*self.inputs.values())
        axes = dict(self.dynamic)
        axes |= {name: axis for axis in self.dynamic.values() for name in self.outputs if name != "anchors"}
        return {
            kind: {
                name: {
                    "shape": [axes.get(name, tensor.shape[0]), *tensor.shape[1:]],
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                }
                for name, tensor in tensors.items()
            }
            for kind, tensors in (
                ("inputs", self.inputs),
                ("outputs", dict(zip(self.outputs, results, strict=True))),
            )
        }


def parts_of(model: STMask, size_hw: tuple[int, int], dynamic_batch: bool) -> Iterator[Part]:
    """The networks of `model` for images of `size_hw`, with batch norms folded into convolutions."""
    model = fused_copy(model, torch.float32, pack=False)
    config = model.config
    images = torch.randn(2 if dynamic_batch else 1, 3, *size_hw)
    with torch.no_grad():
        predictions = model(images)
    optional = ("centerness", "embeddings")
    names = ("box_deltas", "class_logits", *optional, "mask_coeffs", "prototypes", "anchors")
    names = tuple(name for name in names if getattr(predictions, name) is not None)
    if config.temporal_fusion.enabled:
        names += FEATURES
    yield Part(
        "network",
        ExportedNetwork(model, names),
        {"images": images},
        names,
        {"images": "batch"} if dynamic_batch else {},
    )
    boxes = torch.rand(3, 4)
    if config.temporal_fusion.enabled:
        features = [tensor[:1] for tensor in vars(predictions.fusion_features).values()]
        last = [torch.relu(torch.randn_like(tensor)) for tensor in features]
        yield Part(
            "temporal",
            ExportedTemporalNet(model),
            {
                **{f"last_{name}": tensor for name, tensor in zip(FEATURES, last, strict=True)},
                **dict(zip(FEATURES, features, strict=True)),
                "boxes": boxes,
            },
            ("box_deltas", "coeff_changes"),
            {"boxes": "objects"},
        )
    if config.head.mask_iou_net:
        masks = torch.rand(3, *predictions.prototypes.shape[1:3])
        inputs = {"masks": masks, "labels": torch.tensor([1, 2, config.num_classes])}
        axes = dict.fromkeys(inputs, "objects")
        yield Part("mask_ious", ExportedMaskIoUNet(model), inputs, ("mask_ious",), axes)


def write_onnx(part: Part, program: torch.export.ExportedProgram, folder: Path) -> Path:
    """Writes `part` as ONNX, and returns the path."""
    import_extra("onnxscript")
    path = folder / f"{part.name}.onnx"
    names = {"input_names": list(part.inputs), "output_names": list(part.outputs)}
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, **names)
    with atomic_write(path, "wb") as file:
        file.write(exported.model_proto.SerializeToString())
    return path


def write_torch(part: Part, program: torch.export.ExportedProgram, folder: Path) -> Path:
    """Writes `part` for torch.export.load, and returns the path."""
    path = folder / f"{part.name}.pt2"
    with atomic_write(path, "wb") as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found")  # of weights that share their memory
        torch.export.save(program, file)
    return path


def write_openvino(part: Part, program: torch.export.ExportedProgram, folder: Path) -> Path:
    """Writes `part` as OpenVINO's .xml and .bin files, and returns the path of the .xml file."""
    openvino = import_extra("openvino")
    path = folder / f"{part.name}.xml"
    converted = openvino.convert_model(program)
    for port, name in zip(converted.inputs, part.inputs, strict=True):
        port.set_names({name})
    for port, name in zip(converted.outputs, part.outputs, strict=True):
        port.set_names({name})
    openvino.save_model(converted, path, compress_to_fp16=False)
    return path


def run_onnx(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of an ONNX file, by onnxruntime on the CPU."""
    runtime = import_extra("onnxruntime")
    return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, inputs)


def run_torch(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a .pt2 file."""
    program = torch.export.load(path).module()
    with torch.no_grad():
        return [tensor.numpy() for tensor in program(*map(torch.from_numpy, inputs.values()))]


def run_openvino(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of an OpenVINO model on the CPU, computed in float32."""
    openvino = import_extra("openvino")
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled(list(inputs.values())).to_tuple())


FORMATS: dict[str, tuple[Callable, Callable]] = {
    "onnx": (write_onnx, run_onnx),
    "torch": (write_torch, run_torch),
    "openvino": (write_openvino, run_openvino),
}


def largest_errors(part: Part, run: Callable, path: Path) -> dict[str, float]:
    """{output: largest difference from torch, relative to torch's largest number}, for new random inputs."""
    generator = torch.Generator().manual_seed(1)
    inputs = {
        name: torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in part.inputs.items()
    }
    with torch.no_grad():
        expected = part.module(*inputs.values())
    found = run(path, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {
        name: float(np.abs(ours - theirs.numpy()).max() / max(float(theirs.abs().max()), 1e-12))
        for name, ours, theirs in zip(part.outputs, found, expected, strict=True)
    }


def describe_model(model: STMask, size_hw: tuple[int, int]) -> dict[str, Any]:
    """What a program needs besides the network: classes, preprocessing, and what is done with the outputs."""
    config = model.config
    return {
        "config": config.name,
        "class_names": list(config.dataset.class_names),
        "input": asdict(config.input) | {"padded_hw": list(size_hw), "channels": "RGB, 0…255 before normalisation"},
        "detector": asdict(make_detector(config)),
        "temporal_fusion": asdict(config.temporal_fusion),
        "tracking": asdict(config.tracking),
        "postprocess": asdict(config.postprocess),
    }


def export(
    model: STMask, folder: Path, size_hw: tuple[int, int], kind: str = "onnx", dynamic_batch: bool = False
) -> dict[str, Any]:
    """Writes all parts of `model` into `folder` in the format `kind`, and returns the content of model.json.

    Raises:
        InputError: a library is not installed, or the folder cannot be written.
    """
    make_folder(folder)
    write, run = FORMATS[kind]
    description = describe_model(model, size_hw) | {"files": {}}
    with deform_backend("torchvision"):
        for part in parts_of(model, size_hw, dynamic_batch):
            path = write(part, part.export(), folder)
            entry = part.describe() | {"bytes": path.stat().st_size}
            try:
                entry["errors"] = largest_errors(part, run, path)
            except InputError as error:
                logger.warning("%s is not compared with torch: %s", path.name, error)
            description["files"][path.name] = entry
    with atomic_write(folder / "model.json", "w") as file:
        json.dump(description, file, indent=1)
    return description


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", help="a checkpoint, as for eval.py --trained_model")
    parser.add_argument("--config", help="name of the config (default: as the checkpoint says)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the files")
    parser.add_argument("--format", choices=tuple(FORMATS), default="onnx", help="default: %(default)s")
    parser.add_argument(
        "--size",
        type=number_in(int, 1),
        nargs=2,
        metavar=("H", "W"),
        help="size of the network's input, multiples of 32 (default: the config's, padded)",
    )
    parser.add_argument("--batch", choices=("1", "dynamic"), default="1", help="images at once (default: %(default)s)")
    return parser


def run(arguments: Sequence[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    model = STMask.from_pretrained(options.weights, options.config, device="cpu")
    divisor = model.config.input.size_divisor
    size_hw = tuple(options.size or (-(-side // divisor) * divisor for side in model.config.input.size_hw))
    if any(side % divisor for side in size_hw):
        raise InputError(f"--size {size_hw[0]} {size_hw[1]}: height and width must be multiples of {divisor}")
    description = export(model, options.output, size_hw, options.format, options.batch == "dynamic")
    for name, entry in description["files"].items():
        worst = f", largest relative error {max(entry['errors'].values()):.1e}" if "errors" in entry else ""
        print(f"{options.output / name}: {entry['bytes'] / 2**20:.1f} MiB{worst}")


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m tools.export`; returns the exit code."""
    return run_command("tools.export", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
