"""From a picture to the network's input: resize, normalise, pad; the same for training, evaluation and live video.

For training, `ClipTransform` transforms the annotations too and can flip, crop, zoom and change colours; `AffineViews`
makes several frames of a static image. Pictures can be normalised, and their colours changed, on the network's device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision import tv_tensors
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from data.config import Config, InputConfig
from utils.structures import FrameAnnotations, FrameTargets
from ytvis.pixels import FramePixels, check_frame, normalise, padded_to, resize

DISTORTION = v2.RandomPhotometricDistort()


class FrameTransform:
    """Turns frames into network input; the same sizes for every frame, whatever the frame's own.

    `size_hw` is the (height, width) a frame is resized to, `padded_hw` the network input: `size_hw` rounded up to
    multiples of `size_divisor`. `mean` and `std` are RGB, for values 0…255; `mean_colour` is the mean as a pixel. With
    `whole_pixels` resized pixels are rounded to whole numbers.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        size_divisor: int,
        whole_pixels: bool = True,
    ):
        self.whole_pixels = whole_pixels
        self._pixels = FramePixels(size_hw, mean, std, size_divisor)
        self.size_hw, self.padded_hw = size_hw, self._pixels.padded_hw
        self.mean_colour = tuple(round(value) for value in mean)

    @classmethod
    def from_config(cls, cfg: Config, size_hw: tuple[int, int] | None = None) -> Self:
        """The transform of `cfg.input`, to `size_hw` if given."""
        settings = cfg.input
        return cls(
            size_hw or settings.size_hw, settings.mean, settings.std, settings.size_divisor, settings.whole_pixels
        )

    def __call__(self, frame: np.ndarray) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
        """(image [3,H,W] float32, resized (height, width), padded (H, W)) of a frame [h,w,3] uint8 RGB.

        The frame is resized bilinearly without keeping its aspect ratio; the padding, right and below, is 0, the mean
        colour.

        Raises:
            ValueError: `frame` is not [h,w,3] uint8 with at least one pixel.
        """
        image = self.for_network(frame)
        if self.whole_pixels:
            image = self.normalise(image.permute(2, 0, 1))
        return image, self.size_hw, self.padded_hw

    def for_network(self, frame: np.ndarray) -> Tensor:
        """What `inference.network.Network` takes of a frame [h,w,3] uint8 RGB: with `whole_pixels` its picture
        [height,width,3] uint8 of `size_hw`, which the network normalises and pads, otherwise the image [3,H,W] float32.

        Raises:
            ValueError: `frame` is not [h,w,3] uint8 with at least one pixel.
        """
        check_frame(frame)
        if self.whole_pixels:  # resized before it becomes float, as STMask's published weights saw it
            return torch.from_numpy(resize(frame, self.size_hw))
        pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()
        pixels = functional.interpolate(pixels[None], self.size_hw, mode="bilinear", align_corners=False)[0]
        return self.normalise(pixels)

    def normalise(self, pixels: Tensor) -> Tensor:
        """The network input [3,H,W] float32 of RGB values 0…255 [3,height,width] of `size_hw`; the padding is 0."""
        return torch.from_numpy(self._pixels.normalise(pixels.as_subclass(Tensor).numpy()))


class PictureInput:
    """Turns the pictures of `FrameTransform.for_network` into network input on `device`, with the same numbers as
    `FrameTransform`, and without a value that the host has to send: it can be part of a CUDA graph."""

    def __init__(self, settings: InputConfig, device: torch.device):
        self._divisor = settings.size_divisor
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device) for values in (settings.mean, settings.std)
        )

    def __call__(self, pictures: Tensor) -> Tensor:
        """The network input [B,3,H,W] float32, in memory channels-last, of `pictures` [B,height,width,3] uint8 RGB;
        float32 is network input already, and stays as it is.

        Raises:
            ValueError: another shape.
        """
        if pictures.is_floating_point():
            return pictures
        if pictures.ndim != 4 or pictures.shape[3] != 3:
            raise ValueError(f"pictures must be [B,height,width,3], not {list(pictures.shape)}")
        count, height, width, _ = pictures.shape
        padded_height, padded_width = padded_to((height, width), self._divisor)
        # A row of pixels is one row of numbers: on a CPU that is three times as fast as to repeat three numbers.
        rows = self._mean.new_zeros((count, padded_height, 3 * padded_width))
        mean, std = self._mean.repeat(width), self._std.repeat(width)
        normalise(pictures.flatten(2), mean, std, out=rows[:, :height, : 3 * width])
        return rows.view(count, padded_height, padded_width, 3).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ColourChange:
    """A change of the colours of all pictures of a clip, after Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV
    2016), 2.2: `factors` and `channels`, the new order of red, green and blue, are torchvision's draws."""

    factors: dict[str, float | bool | None]
    channels: tuple[int, int, int] | None

    @classmethod
    def draw(cls) -> Self:
        """A change drawn from torch's global CPU generator."""
        factors = DISTORTION.make_params([torch.empty(3, 1, 1)])
        channels = factors.pop("channel_permutation")
        return cls(factors, None if channels is None else tuple(channels.tolist()))

    def __call__(self, pictures: Tensor) -> Tensor:
        """`pictures` [...,3,height,width] uint8 RGB, changed; on their device, to which the host sends nothing."""
        changed = DISTORTION.transform(pictures, {**self.factors, "channel_permutation": None})
        if self.channels is not None:
            changed = torch.stack([changed.select(-3, channel) for channel in self.channels], dim=-3)
        return changed


def change_colours(clips: Tensor, colours: Sequence[ColourChange | None]) -> Tensor:
    """`clips` [B,T,height,width,3] uint8 RGB with the colours of each clip changed."""
    changed = [
        clip if change is None else change(clip.movedim(-1, -3)).movedim(-3, -1)
        for clip, change in zip(clips, colours, strict=True)
    ]
    return torch.stack(changed)


class ClipTransform:
    """Turns annotated frames of a video into network input and targets, all frames of a clip in the same way.

    `flip_probability` is that of a horizontal flip. `photometric` changes colours, `crop` cuts out a region, both after
    Liu et al., "SSD: Single Shot MultiBox Detector" (ECCV 2016), 2.2; `zoom_out` makes the picture a smaller part of
    one in the mean colour (Fu et al., "DSSD", 2017). All draws come from torch's global CPU generator.
    """

    def __init__(
        self,
        frame_transform: FrameTransform,
        flip_probability: float = 0.5,
        photometric: bool = False,
        zoom_out: bool = False,
        crop: bool = False,
    ):
        self.frame_transform = frame_transform
        self._crop = v2.RandomIoUCrop() if crop else None
        self._resize = _Resize(frame_transform.size_hw)
        self._photometric = photometric
        self._zoom_out = None
        if zoom_out:
            fill = {tv_tensors.Image: frame_transform.mean_colour, tv_tensors.Mask: 0}
            self._zoom_out = v2.Compose([v2.ClampBoundingBoxes("hard"), v2.RandomZoomOut(fill=fill), self._resize])
        self._flip = _PixelFlip(flip_probability)

    @classmethod
    def from_config(cls, cfg: Config, size_hw: tuple[int, int] | None = None) -> Self:
        """The transform of `cfg.input`, to `size_hw` if given, with the augmentations of `cfg.train`."""
        recipe = cfg.train
        frames = FrameTransform.from_config(cfg, size_hw)
        return cls(frames, recipe.flip_probability, recipe.photometric, recipe.zoom_out, recipe.crop)

    def __call__(self, frames: Sequence[tuple[np.ndarray, FrameAnnotations]]) -> list[tuple[Tensor, FrameTargets]]:
        """[(image [3,H,W] float32, targets)] of [(frame [h,w,3] uint8 RGB, annotations in its pixels)].

        All frames are of one size. The image is `FrameTransform`'s; masks [N,H,W] are uint8 0/1. Boxes are clipped to
        what is not padding. An object with no mask pixel or no box area left is dropped; N may be 0.

        Raises:
            ValueError: a frame is not [h,w,3] uint8 with at least one pixel.
        """
        samples, _ = self._transform(frames, colours_later=False)
        return [(self.frame_transform.normalise(sample["image"]), self._targets(sample)) for sample in samples]

    def for_network(
        self, frames: Sequence[tuple[np.ndarray, FrameAnnotations]]
    ) -> tuple[list[tuple[Tensor, FrameTargets]], ColourChange | None]:
        """([(picture [height,width,3] uint8 RGB, targets)], None or the change of colours that is still to be made):
        `change_colours` and `PictureInput` turn them into the result of `__call__` on the network's device.

        With `zoom_out` the colours are changed here, as those around the zoomed picture are not.

        Raises:
            ValueError: a frame is not [h,w,3] uint8 with at least one pixel.
        """
        samples, colours = self._transform(frames, colours_later=self._zoom_out is None)
        pictures = [sample["image"].as_subclass(Tensor).permute(1, 2, 0) for sample in samples]
        return list(zip(pictures, map(self._targets, samples), strict=True)), colours

    def _transform(
        self, frames: Sequence[tuple[np.ndarray, FrameAnnotations]], colours_later: bool
    ) -> tuple[list[dict[str, Tensor]], ColourChange | None]:
        """(the samples of `frames` at the network's size, the change of colours still to be made or None)."""
        samples = [_to_sample(frame, annotations) for frame, annotations in frames]
        if self._crop is not None:
            samples = _crop_samples(samples, self._crop)
        # At the network's size, since frames may be far larger; only a crop needs the pixels that resizing loses.
        samples = self._resize(samples)
        colours = ColourChange.draw() if self._photometric else None
        if colours is not None and not colours_later:
            for sample in samples:
                sample["image"] = tv_tensors.Image(colours(sample["image"].as_subclass(Tensor)))
            colours = None
        if self._zoom_out is not None:
            samples = self._zoom_out(samples)
        return self._flip(samples), colours

    def _targets(self, sample: dict[str, Tensor]) -> FrameTargets:
        (height, width), (padded_height, padded_width) = self.frame_transform.size_hw, self.frame_transform.padded_hw
        boxes_px = v2.functional.clamp_bounding_boxes(sample["boxes"], clamping_mode="hard").as_subclass(Tensor)
        masks = functional.pad(
            sample["masks"].as_subclass(Tensor), (0, padded_width - width, 0, padded_height - height)
        )
        targets = FrameTargets(
            boxes=boxes_px / boxes_px.new_tensor([padded_width, padded_height, padded_width, padded_height]),
            labels=sample["labels"],
            masks=masks,
            instance_ids=sample["instance_ids"],
        )
        # The sides of a box are regressed as logarithms, so they must be over 0. (NaN: dropped.)
        has_area = (targets.boxes[:, 2:] > targets.boxes[:, :2]).all(dim=1)
        return targets[has_area & masks.flatten(1).any(dim=1).bool()]


class AffineViews:
    """Imitates another frame of a video: rotates, scales, moves and shears an annotated image, differently each time.

    The angles are drawn from ±`rotation` and ±`shear` (along the rows) degrees, the factor from `scale` (least, most),
    the move from ±`translation` (a fraction of the image's sides); all draws come from torch's global CPU generator.
    Pixels from outside the image have the colour `fill`.
    """

    def __init__(
        self,
        rotation: float,
        scale: tuple[float, float],
        translation: float,
        shear: float,
        fill: tuple[int, int, int] = (0, 0, 0),
    ):
        self._transform = v2.RandomAffine(
            rotation,
            (translation, translation),
            scale,
            shear,
            interpolation=v2.InterpolationMode.BILINEAR,
            fill={tv_tensors.Image: fill, tv_tensors.Mask: 0},
        )

    @classmethod
    def from_config(cls, cfg: Config) -> Self:
        """The views of `cfg.train`, filled with the mean colour, as padding is."""
        recipe = cfg.train
        return cls(
            recipe.static_rotation,
            recipe.static_scale,
            recipe.static_translation,
            recipe.static_shear,
            FrameTransform.from_config(cfg).mean_colour,
        )

    def __call__(self, frame: np.ndarray, annotations: FrameAnnotations) -> tuple[np.ndarray, FrameAnnotations]:
        """Returns (frame, annotations) of a view of `frame` [h,w,3] uint8 RGB, of the same size.

        An object's box is that of its mask in the view; one with no pixel left is dropped, so N may be 0.

        Raises:
            ValueError: `frame` is not [h,w,3] uint8 with at least one pixel.
        """
        sample = _to_sample(frame, annotations)
        image, masks = self._transform(sample["image"], sample["masks"])
        masks = masks.as_subclass(Tensor).bool()
        is_left = masks.flatten(1).any(dim=1)
        masks = masks[is_left]
        view = replace(
            annotations,
            boxes_px=masks_to_boxes(masks).float(),
            labels=annotations.labels[is_left],
            masks=masks,
            instance_ids=annotations.instance_ids[is_left],
        )
        return np.ascontiguousarray(image.permute(1, 2, 0).numpy()), view


def _to_sample(frame: np.ndarray, annotations: FrameAnnotations) -> dict[str, Tensor]:
    """Returns a frame in the types that torchvision's transforms need; they do not change plain tensors."""
    check_frame(frame)
    return {
        "image": tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)),
        # Not clamped on the way: `FrameTargets` are clipped once, at the end.
        "boxes": tv_tensors.BoundingBoxes(
            annotations.boxes_px, format="XYXY", canvas_size=frame.shape[:2], clamping_mode=None
        ),
        "masks": tv_tensors.Mask(annotations.masks.to(torch.uint8)),
        "labels": annotations.labels,
        "instance_ids": annotations.instance_ids,
    }


def _crop_samples(samples: list[dict[str, Tensor]], crop: v2.RandomIoUCrop) -> list[dict[str, Tensor]]:
    """Crops the samples to one region, drawn for the objects of the first; each box is that of its cropped mask.

    torchvision's own crop drops an object whose centre is outside, and the network would learn that it is background.
    """
    first = samples[0]
    region = crop.make_params([first["image"], first["boxes"]]) if len(first["boxes"]) else {}
    if not region:
        return samples
    place = (region["top"], region["left"], region["height"], region["width"])
    return [_crop_sample(sample, place) for sample in samples]


def _crop_sample(sample: dict[str, Tensor], place: tuple[int, int, int, int]) -> dict[str, Tensor]:
    masks = v2.functional.crop(sample["masks"], *place)
    is_left = masks.flatten(1).any(dim=1).bool()
    masks = masks[is_left]
    boxes = tv_tensors.BoundingBoxes(
        masks_to_boxes(masks).float(), format="XYXY", canvas_size=place[2:], clamping_mode=None
    )
    return {
        "image": v2.functional.crop(sample["image"], *place),
        "boxes": boxes,
        "masks": tv_tensors.Mask(masks),
        "labels": sample["labels"][is_left],
        "instance_ids": sample["instance_ids"][is_left],
    }


class _Resize(v2.Resize):
    """torchvision's resize, nearest for masks, but `FrameTransform`'s for images, as torchvision's pixels differ."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        if not isinstance(inpt, tv_tensors.Image):
            return super().transform(inpt, params)
        frame = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy())
        return tv_tensors.Image(torch.from_numpy(resize(frame, tuple(self.size))).permute(2, 0, 1))


class _PixelFlip(v2.RandomHorizontalFlip):
    """torchvision's flip, but a box, whose last pixel is included, goes from x to W − x − 1 instead of W − x."""

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        flipped = super().transform(inpt, params)
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return tv_tensors.wrap(flipped.as_subclass(Tensor) - flipped.new_tensor([1, 0, 1, 0]), like=inpt)
        return flipped
