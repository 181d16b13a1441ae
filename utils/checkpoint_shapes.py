"""What the names and shapes of a network's tensors tell of its config."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

HEAD = "prediction_layers.0."
_BLOCK = re.compile(r"backbone\.layers\.(\d)\.(\d{1,3})\.(conv[13]|conv2\.conv_offset_mask)\.weight")


def keys_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """{config key: value}, as far as the tensors tell; {} for another network. `num_classes` is the number of classes,
    and `num_anchors` the number of anchors of a cell that share YOLACT's convolutions, 0 for heads with FCA."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    try:
        return {**_of_backbone(shapes), **_of_head(shapes), **_of_fusion(shapes)}
    except (ArithmeticError, LookupError, ValueError):  # a part is absent, or has another number of axes
        return {}


def _of_backbone(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    found = [(int(match[1]), int(match[2]), match[3]) for match in map(_BLOCK.fullmatch, shapes) if match]
    deformable = {(stage, block) for stage, block, layer in found if "mask" in layer}
    blocks = tuple(len({block for at, block, _ in found if at == stage}) for stage in range(4))
    interval = 0
    if deformable:
        interval = min((block for _, block in deformable if block), default=max(blocks))
    return {
        "backbone.block": "bottleneck" if any(layer == "conv3" for *_, layer in found) else "basic",
        "backbone.blocks": blocks,
        "backbone.stem_channels": shapes["backbone.conv1.weight"][0],
        "backbone.dcn_interval": interval,
    }


def _of_head(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    last = max((name for name in shapes if re.fullmatch(r"proto_net\.\d+\.bias", name)), key=_number)
    keys = {
        "head.channels": shapes["fpn.lat_layers.0.weight"][0],
        "head.num_prototypes": shapes[last][0],
        "head.centerness": any(name.startswith(f"{HEAD}centerness_layer.") for name in shapes),
        "head.mask_iou_net": any(name.startswith("maskiou_net.") for name in shapes),
    }
    if f"{HEAD}bbox_layer.weight" in shapes:
        num_anchors = shapes[f"{HEAD}bbox_layer.bias"][0] // 4
        lengths = {
            "num_classes": shapes[f"{HEAD}conf_layer.bias"][0] // num_anchors - 1,
            "head.embedding_dim": shapes.get(f"{HEAD}track_layer.bias", (0,))[0] // num_anchors,
        }
        return {**keys, **lengths, "num_anchors": num_anchors, "head.calibration": "none"}
    kernels = []
    while (name := f"{HEAD}bbox_layer.{len(kernels)}.weight") in shapes:
        kernels.append(tuple(shapes[name][2:]))
    calibration = "none"
    if f"{HEAD}conf_layer.0.conv_adaption.weight" in shapes:
        calibration = "ada" if f"{HEAD}conf_layer.0.conv_offset.weight" in shapes else "ali"
    logits = "conf_layer.0.bias" if calibration == "none" else "conf_layer.0.conv.bias"
    return {
        **keys,
        "num_classes": shapes[HEAD + logits][0] - 1,
        "num_anchors": 0,
        "head.kernels": tuple(kernels),
        "head.calibration": calibration,
        "head.embedding_dim": shapes.get(f"{HEAD}track_layer.0.bias", (0,))[0],
    }


def _of_fusion(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    if not any(name.startswith("TemporalNet.") for name in shapes):
        return {"temporal_fusion.enabled": False}
    side = math.isqrt(shapes["TemporalNet.conv1.weight"][1] - 2 * shapes["fpn.lat_layers.0.weight"][0])
    return {
        "temporal_fusion.enabled": True,
        "temporal_fusion.patch_size": side,
        "temporal_fusion.channels": tuple(shapes[f"TemporalNet.conv{number}.bias"][0] for number in (1, 2, 3)),
    }


def _number(name: str) -> int:
    return int(name.split(".")[1])
