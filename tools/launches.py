"""Counts the costs of a frame on a GPU besides arithmetic: operators, kernels, launches and host syncs, by stage.

    python -m tools.launches --config=STMask_plus_resnet50_ada_config --precision=bf16
    python -m tools.launches --config=STMask_plus_resnet50_ada_config --precision=bf16 --training

No GPU is needed: the operators that a GPU runs for the last of a few frames are run and counted on the CPU, from
`track_videos` with batches of one to the objects in pixels of the video. Weights and frames are random, and thresholds
are such that every frame has `--objects` objects. With `--training` it is a step of train.py with two clips of such
frames, uploaded already; its stage *update* is the backward pass and the optimiser. Launches are estimated: a
convolution with a bias is two, a sort is four, torchvision's deformable convolution is ten. A wait is a place where the
host needs a value of the device and stops until the device has computed it, or where it copies memory that is not
page-locked.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from data.config import Config, get_config
from data.transforms import ColourChange, FrameTransform
from inference.network import Network
from inference.tracker import VideoTracker
from inference.videos import track_videos
from layers.deform_conv import deform_backend
from layers.mask_utils import crop_window
from stmask import STMask
from train import Trainer, collate_for
from utils.delayed_reads import STEPS_AHEAD, DelayedReads
from utils.distributed import World
from utils.structures import Clip, FrameInput, FrameMeta, FrameTargets, tensors_in
from utils.training_settings import TrainSettings
from utils.transfers import Event, Transfers
from ytvis.command_line import Parser, positive, run_command
from ytvis.files import atomic_write

ROOT = f"{Path(__file__).parent.parent}/"
FRAMES = 4  # the last one is counted: by then everything is allocated
VIDEO_HW = (720, 1280)
STAGES = {  # the innermost of these files that calls an operator gives its stage
    "data/transforms.py": "input",
    "inference/videos.py": "input",
    "backbone.py": "backbone",
    "layers/fpn.py": "pyramid",
    "layers/protonet.py": "prototypes",
    "layers/prediction_head.py": "head",
    "stmask.py": "network, rest",
    "layers/detection.py": "detect",
    "layers/temporal_fusion.py": "temporal",
    "layers/association.py": "match",
    "inference/tracker_step.py": "match",
    "inference/tracker.py": "report",
    "layers/postprocess.py": "report",
    "layers/anchor_targets.py": "losses",
    "layers/losses.py": "losses",
    "train.py": "update",
}
OTHER = "other"
READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive")
ON_HOST_BY_DEFAULT = ("arange", "empty", "full", "ones", "zeros")  # tensors made without a device
INDEXING = ("index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index")
EXTRA_LAUNCHES = {"nonzero": 3, "sort": 3, "roi_align": 1, "deform_conv2d": 9}  # beyond the first
NO_KERNEL = (
    *("view", "_unsafe_view", "_reshape_alias", "as_strided", "alias", "detach", "lift_fresh", "expand", "slice"),
    *("permute", "transpose", "t", "select", "squeeze", "unsqueeze", "split", "split_with_sizes", "unbind", "diagonal"),
    *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
)


def main(argv: list[str] | None = None) -> int:
    return run_command("launches", lambda: run(argv))


def run(argv: list[str] | None) -> None:
    parser = Parser("python -m tools.launches", __doc__)
    parser.add_argument("--config", required=True, metavar="NAME")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a config key")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="default: %(default)s")
    parser.add_argument("--objects", type=positive, default=5, metavar="N", help="per frame (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the counts to this file")
    parser.add_argument("--training", action="store_true", help="count a training step")
    options = parser.parse_args(argv)
    if options.training:
        config = get_config(options.config, ["train.pretrained=", *options.set])
        counts = count_step(config, options.precision, options.objects)
    else:
        counts = count_frame(get_config(options.config, [*overrides(options.objects), *options.set]), options.precision)
    print(format_counts(counts))
    if options.json:
        content = {key: getattr(options, key) for key in ("config", "precision", "objects", "training")}
        with atomic_write(options.json, "w") as file:
            json.dump(content | counts.as_json(), file, indent=1)


def overrides(num_objects: int) -> list[str]:
    """Config keys with which a network of random weights finds `num_objects` objects in every frame."""
    return [
        "detection.conf_threshold=0",
        "detection.nms_threshold=1",
        f"detection.top_k={num_objects}",
        "tracking.new_object_similarity=0",
        "tracking.new_object_iou=0",
        "tracking.score_threshold=0",
        "postprocess.score_threshold=0",
    ]


@dataclass
class FrameCounts:
    """Costs of a frame or a step, by stage: `operators` dispatched, `kernels` among them, estimated `launches`.

    `waits` are keyed by (stage, "file:line function", kind)."""

    operators: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def stages(self) -> list[str]:
        """The stages that occur, in the order of a frame."""
        seen = {*self.operators, *(stage for stage, _, _ in self.waits)}
        return [stage for stage in dict.fromkeys((*STAGES.values(), OTHER)) if stage in seen]

    def waits_of(self, stage: str) -> int:
        return sum(number for (where, _, _), number in self.waits.items() if where == stage)

    def as_json(self) -> dict[str, Any]:
        """The counts by stage, "stages", their sums, "total", and the waits by place."""
        numbers = {"operators": self.operators, "kernels": self.kernels, "launches": self.launches}
        stages = {
            stage: {name: counter[stage] for name, counter in numbers.items()} | {"waits": self.waits_of(stage)}
            for stage in self.stages()
        }
        total = {name: sum(counts[name] for counts in stages.values()) for name in (*numbers, "waits")}
        waits = [
            {"stage": stage, "where": where, "kind": kind, "number": number}
            for (stage, where, kind), number in self.waits.most_common()
        ]
        return {"stages": stages, "total": total, "waits": waits}


def format_counts(counts: FrameCounts) -> str:
    """A table of the stages, then the places that wait."""
    content = counts.as_json()
    names = list(content["total"])
    lines = [f"{'':13}" + "".join(f"{name:>11}" for name in names)]
    for stage, numbers in {**content["stages"], "total": content["total"]}.items():
        lines.append(f"{stage:13}" + "".join(f"{numbers[name]:11}" for name in names))
    lines += [f"{wait['number']:3} × {wait['kind']:20} {wait['where']} ({wait['stage']})" for wait in content["waits"]]
    return "\n".join(lines)


def count_frame(config: Config, precision: str = "fp32") -> FrameCounts:
    """Counts the work of a GPU for a frame with the network of `config`; see the module."""
    torch.manual_seed(0)
    model = STMask.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if "centerness_layer" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 1.0)  # scores above 0
    tracker = VideoTracker(model, network=Network(model, precision, pack=False), fixed_shapes=True)
    counter = OperatorCounter()
    with deform_backend("torchvision"):
        results = track_videos(model, random_frames(config), tracker=tracker)
        for _ in range(FRAMES - 1):
            next(results)
        tracker.transfers = CountedTransfers(counter)
        with HostTensors(counter), counter:
            next(results)
        results.close()
    return counter.counts


def count_step(config: Config, precision: str, num_objects: int) -> FrameCounts:
    """Counts the work of a GPU for a training step of the network of `config` with two clips whose frames have
    `num_objects` objects each; see the module."""
    torch.manual_seed(0)
    world = World(torch.device("cpu"))
    world.is_queued = True
    trainer = Trainer(STMask.from_config(config), TrainSettings(batch_size=2, precision=precision), 10, world)
    batch = collate_for(config, world)([random_clip(config, num_objects, first) for first in (0, num_objects)])
    counter = OperatorCounter()
    trainer.reads = DelayedReads(STEPS_AHEAD, CountedTransfers(counter))
    with deform_backend("torchvision"):
        for _ in range(STEPS_AHEAD):  # then everything is allocated, and the losses of the first of them are read
            trainer.step(batch)
        with HostTensors(counter), counter:
            trainer.step(batch)
    return counter.counts


def random_clip(config: Config, num_objects: int, first_id: int) -> Clip:
    """A clip of pictures of noise; its objects, numbered from `first_id`, are boxes in all frames."""
    transform = FrameTransform.from_config(config)
    height, width = transform.padded_hw
    low = torch.rand(num_objects, 2) * 0.6
    boxes = torch.cat((low, low + 0.1 + torch.rand(num_objects, 2) * 0.3), dim=1)
    masks = crop_window(boxes, height, width).byte()
    labels = torch.randint(1, config.num_classes + 1, (num_objects,))
    truth = FrameTargets(boxes, labels, masks, first_id + torch.arange(num_objects))
    frames = config.train.clip_frames
    pictures = torch.randint(256, (frames, *transform.size_hw, 3), dtype=torch.uint8)
    return Clip(pictures, (truth,) * frames, colours=ColourChange.draw() if config.train.photometric else None)


def random_frames(config: Config) -> Iterator[FrameInput]:
    """`FRAMES` similar frames of noise, as input of the network of `config`."""
    transform = FrameTransform.from_config(config)
    generator = np.random.default_rng(1)
    scene = generator.integers(0, 250, (*transform.size_hw, 3), np.uint8)
    for index in range(FRAMES):
        image = on_host(transform.for_network(scene + generator.integers(0, 6, scene.shape, np.uint8)))
        meta = FrameMeta(1, index, VIDEO_HW, transform.size_hw, transform.padded_hw)
        yield FrameInput(meta, image, is_last=index == FRAMES - 1)


def on_host(tensor: Tensor) -> Tensor:
    """`tensor`, marked as in the host's memory when a GPU runs the network."""
    tensor.is_on_host = True
    return tensor


def page_locked(tensor: Tensor) -> Tensor:
    """`tensor`, marked as in page-locked memory of the host."""
    tensor.is_page_locked = True
    return on_host(tensor)


def are_on_host(values: Any) -> bool:
    """Whether `values` contains tensors and all of them are marked by `on_host`."""
    tensors = tensors_in(values)
    return bool(tensors) and all(getattr(tensor, "is_on_host", False) for tensor in tensors)


def calling_frames() -> Iterator[tuple[str, FrameType]]:
    """(file relative to the repository, frame) of the running functions here, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(ROOT) and name != __file__ and "site-packages" not in name:  # of .venv, which lies within
            yield name.removeprefix(ROOT), frame
        frame = frame.f_back


def stage_now() -> str:
    """The stage of the current operator."""
    return next((STAGES[name] for name, _ in calling_frames() if name in STAGES), OTHER)


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that are dispatched on tensors that are not `on_host`."""

    def __init__(self):
        super().__init__()
        self.counts = FrameCounts()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        is_composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
        if is_composite and not name.startswith("upsample"):  # in inference mode they arrive whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if are_on_host([args, list(kwargs.values())]):
            result = func(*args, **kwargs)
            for tensor in tensors_in(result):
                on_host(tensor)
            return result
        self.count(name, args)
        return func(*args, **kwargs)

    def count(self, name: str, args: tuple = ()) -> None:
        """Counts an operator."""
        stage = stage_now()
        by_mask = 0
        if name in INDEXING:
            by_mask = sum(index.dtype in (torch.bool, torch.uint8) for index in tensors_in(args[1]))
        self.counts.operators[stage] += 1
        if name not in NO_KERNEL:
            has_bias = name == "convolution" and args[2] is not None
            self.counts.kernels[stage] += 1
            self.counts.launches[stage] += 1 + EXTRA_LAUNCHES.get(name, 0) + has_bias + 4 * by_mask
        if by_mask:
            self.wait("index by a mask", by_mask)
        elif name in READS:
            self.wait("read" if name == "_local_scalar_dense" else name)

    def wait(self, kind: str, number: int = 1) -> None:
        """Counts a wait in the running function here, except those of utils/."""
        places = ((name, frame) for name, frame in calling_frames() if not name.startswith("utils/"))
        name, frame = next(places, (OTHER, None))
        where = f"{name}:{frame.f_lineno} {frame.f_code.co_name}" if frame else name
        self.counts.waits[stage_now(), where, kind] += number


class HostTensors(TorchFunctionMode):
    """Marks tensors copied to the host, and counts copies between host and device, which do nothing on a CPU."""

    def __init__(self, counter: OperatorCounter):
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        places = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, str | torch.device)]
        if name == "cpu" or (name == "to" and "cpu" in places):  # a text, the host; a torch.device is the model's
            return args[0] if are_on_host(args[0]) else self._copy(args[0], "copy to the host")
        if name == "to" and places and are_on_host(args[0]):
            self.counter.count("copy_")
            return self._copy(args[0], "upload")
        if name == "copy_" and are_on_host(args[0]) and not are_on_host(args[1]):
            self._wait_for_copy("copy to the host", args[0])
        if name == "from_numpy" or (name == "stack" and are_on_host(args)):
            with torch._C.DisableTorchFunction():
                return on_host(func(*args, **kwargs))
        if not are_on_host(args):
            if name == "tolist":
                self.counter.wait("tolist")
            elif name in ("tensor", "as_tensor", "new_tensor"):
                self.counter.wait(f"upload by {name}")
        if name in ON_HOST_BY_DEFAULT and not places:
            with torch._C._DisableTorchDispatch():
                return on_host(func(*args, **kwargs))
        result = func(*args, **kwargs)
        return on_host(result) if name == "new_tensor" and are_on_host(args) else result

    def _copy(self, tensor: Tensor, kind: str) -> Tensor:
        """The other side's copy of `tensor`."""
        self._wait_for_copy(kind, tensor)
        copy = tensor.clone()
        copy.is_on_host = kind != "upload"
        return copy

    def _wait_for_copy(self, kind: str, memory: Tensor) -> None:
        """The host waits for a copy from or to its `memory`, unless it is page-locked."""
        if not getattr(memory, "is_page_locked", False):
            self.counter.wait(kind)


class CountedTransfers(Transfers):
    """Those of a GPU, on a CPU: `counter` counts a wait for each copy to the host that is read."""

    def __init__(self, counter: OperatorCounter):
        super().__init__(torch.device("cpu"))
        self.are_asynchronous = True
        self.counter = counter

    def host_memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        with torch._C._DisableTorchDispatch():
            return page_locked(torch.empty(tuple(shape), dtype=dtype))

    def record(self) -> Event:
        return CountedEvent(self.counter)


class CountedEvent:
    """The end of a copy to the host."""

    def __init__(self, counter: OperatorCounter):
        self.counter = counter

    def synchronize(self) -> None:
        self.counter.wait("arrival")


if __name__ == "__main__":
    sys.exit(main())
