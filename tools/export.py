"""Exports the network of a checkpoint for other runtimes: ONNX, torch.export, OpenVINO.

    python -m tools.export weights/STMask_demo.pth --output exported
    python -m tools.export weights/STMask_demo.pth --output exported --format torch --batch dynamic

Writes into the folder, each file whole or not at all:

network.onnx    images [B,3,H,W] float32 → the fields of `utils.structures.Predictions` that the config has, by name
temporal.onnx   features of the last and of this frame, boxes [N,4] → box regression [N,4], coefficient changes [N,K]
mask_ious.onnx  masks [N,h,w], labels [N] int64 → expected IoU of each mask [N] (YOLACT++)
tracker.onnx    what is known of a video, the outputs of network and temporal → what is known then, what is reported
model.json      classes, preprocessing, thresholds, and the shapes of all inputs and outputs

`python -m tools.run_exported` tracks videos with these files, without torch. tracker.onnx is left out for configs with
`tracking.joint`, which assign objects on the host.

B is 1 unless --batch=dynamic, N is dynamic. "onnx" has opset 20 with the standard operator DeformConv. "torch" writes
.pt2 files for `torch.export.load`, "openvino" .xml and .bin files. Where the runtime is installed, every file is run on
random input, and its largest relative error against torch is printed and written into model.json.
"""

import argparse
import inspect
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inference.network import fused_copy
from inference.stream import stream_track_age
from inference.tracker_step import TrackerState, TrackerStep, make_detector, make_step
from layers.compaction import order_rows
from layers.deform_conv import deform_backend
from layers.temporal_fusion import fuse
from stmask import STMask
from utils.structures import FusionFeatures, Predictions, Tracks
from ytvis.command_line import Parser, number_in, run_command
from ytvis.files import InputError, atomic_write, make_folder
from ytvis.optional import import_extra
from ytvis.pixels import FramePixels, TrackArrays

logger = logging.getLogger(__name__)

OPSET = 20
MANY = 1 << 10  # most images of a batch, and most objects of a frame
FEATURES = ("pyramid", "shared")  # of `FusionFeatures`
CHANGES = ("changes_box_deltas", "changes_coeffs")  # the temporal net's result, as input of the tracker
NEVER = torch.iinfo(torch.int32).max  # a `max_track_age` that no object reaches; OpenVINO computes with int32


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
class ComputedChanges:
    """In the place of a `Network`: the temporal net's result is there already."""

    model: STMask
    box_deltas: Tensor
    coeff_changes: Tensor

    def changes(self, last: None, current: FusionFeatures, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return self.box_deltas, self.coeff_changes

    def mask_ious(self, masks: Tensor, labels: Tensor) -> Tensor:
        return self.model.maskiou_net.of_labels(masks, labels)


class ExportedTracker(nn.Module):
    """The tracker's step in fixed shapes, of the tensors `inputs`, as a flat tuple of those that `outputs` lists.

    known_… are the fields of `Tracks` of M objects, of which the first `num_known` are real; new_… is the state after
    the frame, reported_… what is reported: the first `num_reported` rows.
    """

    def __init__(self, model: STMask, inputs: Sequence[str]):
        super().__init__()
        self.model = model
        self.step: TrackerStep = make_step(model.config, None, order_rows)
        self.inputs = inputs
        known = [name for name in inputs if name.startswith("known_")]
        reported = [f.name for f in fields(TrackArrays) if f.name != "mask_ious" or self.step.rescores]
        self.outputs = (
            *(f"new_{name}" for name in (*known, "num_known", "next_id")),
            *(f"reported_{name}" for name in reported),
            "num_reported",
        )

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(self.inputs, tensors, strict=True))
        known = Tracks(**{f.name: values.get(f"known_{f.name}") for f in fields(Tracks)})
        are_known = torch.arange(known.boxes.shape[0]) < values["num_known"]
        nothing = known.boxes.new_zeros(1)
        predictions = Predictions(
            **{f.name: values.get(f.name) for f in fields(Predictions) if f.name != "fusion_features"},
            fusion_features=FusionFeatures(nothing, nothing),  # the temporal net has used them
        )
        changes = (values.get(name) for name in CHANGES)
        step = replace(self.step, network=ComputedChanges(self.model, *changes), max_track_age=values["max_track_age"])
        state, reported = step(TrackerState(known, are_known, values["next_id"]), predictions)
        results = {f"new_known_{name}": value for name, value in vars(state.known).items()}
        results |= {f"reported_{name}": value for name, value in vars(reported.tracks).items()}
        results |= {"new_num_known": reported.num_known, "new_next_id": state.next_id}
        results["num_reported"] = reported.are_real.sum()
        return tuple(results[name] for name in self.outputs)


@dataclass(frozen=True)
class Part:
    """A network to export: example `inputs` by name, whose first axis varies where `dynamic` names it.

    The first axes of `outputs` vary likewise, unless `output_axes` names them. With `is_typical`, random inputs other
    than the examples would mean nothing.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, str]
    output_axes: dict[str, str] | None = None
    is_typical: bool = False

    @torch.no_grad()
    def export(self) -> torch.export.ExportedProgram:
        """The network as torch.export traces it."""
        axes = {name: torch.export.Dim(name, min=1, max=MANY) for name in set(self.dynamic.values())}
        shapes = tuple({0: axes[self.dynamic[name]]} if name in self.dynamic else None for name in self.inputs)
        if len(inspect.signature(self.module.forward).parameters) < len(shapes):
            shapes = (shapes,)  # of *tensors
        return torch.export.export(self.module.eval(), tuple(self.inputs.values()), dynamic_shapes=shapes)

    def describe(self) -> dict[str, Any]:
        """{"inputs": {name: {"shape", "dtype"}}, "outputs": likewise}; an axis that varies has its name as size."""
        with torch.no_grad():
            results = self.module(*self.inputs.values())
        axes = self.output_axes
        if axes is None:
            axes = {name: axis for axis in self.dynamic.values() for name in self.outputs if name != "anchors"}
        axes = self.dynamic | axes
        return {
            kind: {
                name: {
                    "shape": [axes[name], *tensor.shape[1:]] if name in axes else list(tensor.shape),
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
    if config.tracking.joint:
        logger.warning("the tracker is not exported: with tracking.joint objects are assigned on the host")
    else:
        yield tracker_part(model, predictions)


def tracker_part(model: STMask, predictions: Predictions) -> Part:
    """The tracker's step; `predictions` are the network's for any images."""
    rows = 3
    of_network = {f.name: getattr(predictions, f.name) for f in fields(Predictions)}
    of_network = {name: value for name, value in of_network.items() if isinstance(value, Tensor) and name != "finest"}
    logits = 4 * torch.randn_like(predictions.class_logits)  # so that there are detections
    of_network = {name: value if name == "anchors" else value[:1] for name, value in of_network.items()}
    of_network["class_logits"] = logits[:1]
    coeffs = torch.randn(rows, predictions.mask_coeffs.shape[2])
    step = make_step(model.config, None, order_rows)
    past = predictions.embeddings[0, : rows * step.num_past].unflatten(0, (rows, -1)) if step.num_past else None
    known = {
        "boxes": torch.rand(rows, 4),
        "scores": torch.rand(rows),
        "labels": torch.ones(rows, dtype=torch.int64),
        "centerness": None if predictions.centerness is None else torch.rand(rows),
        "mask_coeffs": coeffs,
        "embeddings": None if predictions.embeddings is None else predictions.embeddings[0, :rows],
        "masks": torch.rand(rows, *predictions.prototypes.shape[1:3]),
        "track_ids": torch.arange(rows),
        "ages": torch.zeros(rows, dtype=torch.int64),
        "velocities": torch.rand(rows, 2) if step.moves else None,
        "past_embeddings": past,
    }
    objects = {f"known_{name}": value for name, value in known.items() if value is not None}
    if model.config.temporal_fusion.enabled:
        objects |= dict(zip(CHANGES, (torch.rand(rows, 4), torch.randn_like(coeffs)), strict=True))
    numbers = {"num_known": rows, "next_id": rows, "max_track_age": NEVER}
    inputs = {**objects, **{name: torch.tensor(number) for name, number in numbers.items()}, **of_network}
    module = ExportedTracker(model, tuple(inputs))
    with torch.no_grad():
        results = dict(zip(module.outputs, module(*inputs.values()), strict=True))
    fixed = len(results["new_known_boxes"]) - rows
    axes = {name: f"objects + {fixed}" for name, value in results.items() if value.ndim and len(value) == fixed + rows}
    return Part("tracker", module, inputs, module.outputs, dict.fromkeys(objects, "objects"), axes, is_typical=True)


def write_onnx(part: Part, program: torch.export.ExportedProgram, folder: Path) -> Path:
    """Writes `part` as ONNX, and returns the path."""
    operators = import_extra("onnxscript").opset20

    def sort(values, stable: bool = True, dim: int = -1, descending: bool = False):
        count = operators.Gather(operators.Shape(values), operators.Constant(value_ints=[dim]))
        return operators.TopK(values, count, axis=dim, largest=int(descending), sorted=1)  # of equal ones the first

    path = folder / f"{part.name}.onnx"
    names = {"input_names": list(part.inputs), "output_names": list(part.outputs)}
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    table = {torch.ops.aten.sort.stable: sort}
    exported = torch.onnx.export(
        program, dynamo=True, opset_version=OPSET, verbose=False, custom_translation_table=table, **names
    )
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
    """{output: largest difference from torch, relative to torch's largest number}, for new random inputs unless the
    part `is_typical`."""
    generator = torch.Generator().manual_seed(1)
    inputs = {
        name: tensor
        if part.is_typical or not tensor.is_floating_point()
        else torch.rand(tensor.shape, generator=generator)
        for name, tensor in part.inputs.items()
    }
    with torch.no_grad():
        expected = part.module(*inputs.values())
    found = run(path, {name: tensor.numpy() for name, tensor in inputs.items()})
    return {
        name: largest_error(ours, theirs.numpy())
        for name, ours, theirs in zip(part.outputs, found, expected, strict=True)
    }


def largest_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference of two arrays of one shape, relative to the largest finite number of `theirs`."""
    differences = np.subtract(ours, theirs, where=ours != theirs, out=np.zeros(theirs.shape))  # −∞ equals −∞
    largest = np.abs(theirs, where=np.isfinite(theirs), out=np.zeros(theirs.shape)).max(initial=1e-12)
    return float(np.abs(differences).max(initial=0) / largest)


def describe_model(model: STMask, size_hw: tuple[int, int]) -> dict[str, Any]:
    """What a program needs besides the network: classes, preprocessing, and what is done with the outputs."""
    config, settings = model.config, model.config.input
    is_padded = FramePixels(settings.size_hw, settings.mean, settings.std, settings.size_divisor).padded_hw == size_hw
    sizes = {"size_hw": list(settings.size_hw if is_padded else size_hw), "padded_hw": list(size_hw)}
    return {
        "config": config.name,
        "class_names": list(config.dataset.class_names),
        "category_ids": list(config.category_ids),
        "input": asdict(settings) | sizes | {"channels": "RGB, 0…255 before normalisation"},
        "detector": asdict(make_detector(config)),
        "temporal_fusion": asdict(config.temporal_fusion),
        "tracking": asdict(config.tracking) | {"stream_max_track_age": stream_track_age(config)},
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
