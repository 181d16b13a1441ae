"""The data sets of a training: one, or several whose classes are joined.

sets = TrainingSets.parse("YTVIS2019,COCO2017:0.5", class_map="classes.json")
config = get_config(name, sets.overrides())
parts = [ClipDataset.from_config(config, dataset) for dataset in sets.load(config)]
sampler = ClipSampler([len(part) for part in parts], batch_size=8, seed=0, weights=sets.weights)
batches = make_clip_loader(join(parts), sampler, num_workers=2, pin_memory=True)
"""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from data.clips import ClipDataset, JoinedSamples, SampleOrder
from data.config import Config, dataset_overrides, make_config, nearest
from data.crops import CropDataset
from data.dataset import YTVISDataset
from data.trained import without_place
from utils.checkpoint_record import is_text
from ytvis.annotations import normalised_name, read_class_names
from ytvis.files import InputError, read_json
from ytvis.messages import excerpt, short_name, shown
from ytvis.splits import base_split

logger = logging.getLogger(__name__)

OTHERS = "*"  # in a class map: all classes that it does not name

ClassMaps = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class ChosenSet:
    """A data set of `data.config.DATASETS` by its `name`, in the `folder` that is its root (default: the usual one), or
    an annotation file, whose path is the `name`, with the `folder` of its frames."""

    name: str
    folder: str = ""
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The set of NAME[@FOLDER][:WEIGHT] or FILE.json@FOLDER[:WEIGHT].

        Raises:
            InputError: the name is unknown, a file has no folder, or the weight is not over 0.
        """
        place, _, number = text.strip().rpartition(":")
        try:
            weight = float(number) if place else None
        except ValueError:  # the colon is part of a path, or of a name that is unknown
            weight = None
        if weight is None:
            place = text.strip()
        elif not (weight > 0 and math.isfinite(weight)):
            raise InputError(f"--train_dataset {text.strip()}: a weight must be over 0")
        name, _, folder = place.partition("@")
        chosen = cls(name, os.path.expanduser(folder), weight)
        if chosen.is_file:
            if not folder:
                raise InputError(f"--train_dataset {name}: add the folder of its frames: {name}@FOLDER")
            return cls(os.path.expanduser(name), chosen.folder, weight)
        return cls(dataset_overrides(name)["dataset.name"], chosen.folder, weight)

    @property
    def is_file(self) -> bool:
        """Whether it is an annotation file."""
        return self.name.lower().endswith(".json")

    def overrides(self) -> dict[str, Any]:
        """Overrides for `get_config` that make it a config's data set, with its classes.

        Raises:
            InputError: its file cannot be read.
        """
        if self.is_file:
            try:
                return {"dataset.name": Path(self.name).stem, "dataset.class_names": read_class_names(self.name)}
            except InputError as error:
                raise InputError(f"--train_dataset: {error}") from None
        return dataset_overrides(self.name) | ({"dataset.root": self.folder} if self.folder else {})

    def recorded(self) -> str:
        """Its text without a place outside the working directory."""
        name, folder = (without_place("", part) for part in (self.name, self.folder))
        return name + (f"@{folder}" if folder else "") + ("" if self.weight is None else f":{self.weight:g}")


@dataclass(frozen=True)
class TrainingSets:
    """The chosen data sets; none for the config's own.

    `keys` are each set's overrides. Where the sets are joined, `class_names` are those of the model and
    `labels[number][i]` is its label 1…C for class i of a set, 0 for a class that is left out; otherwise both are empty.
    """

    sets: tuple[ChosenSet, ...] = ()
    keys: tuple[Mapping[str, Any], ...] = ()
    class_names: tuple[str, ...] = ()
    labels: tuple[tuple[int, ...], ...] = ()
    class_map: str | None = None

    @classmethod
    def parse(cls, text: str | None, class_map: str | None = None, class_names: Any = None) -> Self:
        """The sets of a text such as A,B:0.5 (see `ChosenSet.parse`), with the classes that `join_classes` gives.

        `class_map` is a file for `read_class_maps`; `class_names` is the value of that config key if it was given.

        Raises:
            InputError: a set or the class map cannot be used.
        """
        if text is None:
            if class_map is not None:
                raise InputError("--class_map is for the sets of --train_dataset; name them")
            return cls()
        sets = tuple(map(ChosenSet.parse, text.split(",")))
        names = [chosen.name for chosen in sets]
        if len(set(names)) < len(names):
            raise InputError(f"--train_dataset {text}: a set is there twice; give it a weight instead")
        keys = tuple(chosen.overrides() for chosen in sets)
        if len(sets) == 1 and class_map is None:
            return cls(sets, keys)
        classes = {name: own["dataset.class_names"] for name, own in zip(names, keys, strict=True)}
        given = make_config("", {}, {"dataset.class_names": class_names}).dataset.class_names if class_names else ()
        maps = {} if class_map is None else read_class_maps(class_map, classes)
        return cls(sets, keys, *join_classes(classes, maps, given), class_map)

    @property
    def weights(self) -> list[float] | None:
        """Proportional to the sets' shares in the samples; None for the numbers of key frames. A set without a weight
        has 1 if another has one."""
        given = [chosen.weight for chosen in self.sets]
        return None if not any(given) else [weight or 1.0 for weight in given]

    def overrides(self) -> dict[str, Any]:
        """Overrides for `get_config`: the first set, with the classes of all."""
        joined = {"dataset.class_names": self.class_names, "dataset.category_ids": ()} if self.labels else {}
        return {**self.keys[0], **joined} if self.sets else {}

    def recorded(self) -> dict[str, str]:
        """The options that name several sets, for a checkpoint; a place outside the working directory is left out."""
        if not self.labels:
            return {}
        options = {"train_dataset": ",".join(chosen.recorded() for chosen in self.sets)}
        if self.class_map is not None:
            options["class_map"] = without_place("", self.class_map)
        return {name: value for name, value in options.items() if is_text(value)}

    def load(self, config: Config, split: str = "train", **of_first: Any) -> list[YTVISDataset]:
        """The `split` of the first set (see `load_first`), and the train splits of the others, with labels of `config`.

        Raises:
            InputError: a set is not found or cannot be used.
        """
        first = self.load_first(config, split, **of_first)
        return [first, *(self._load(number, config) for number in range(1, len(self.sets)))]

    def load_first(self, config: Config, split: str, **places: Any) -> YTVISDataset:
        """The `split` of the first set, or of the config's own; `places` as for `YTVISDataset.from_config`."""
        if not self.sets:
            return YTVISDataset.from_config(config, split, **places)
        return self._load(0, config, split, **places)

    def _load(self, number: int, config: Config, split: str = "train", **places: Any) -> YTVISDataset:
        chosen, keys = self.sets[number], dict(self.keys[number])
        if number == 0:  # the config has it already, and maybe other keys of it
            keys = {"dataset.class_names": keys["dataset.class_names"]} if self.labels else {}
        if chosen.is_file and base_split(split) == "train":
            places = {"ann_file": chosen.name, "image_root": chosen.folder} | {k: v for k, v in places.items() if v}
        if number:
            places["elsewhere"] = f"name its folder: --train_dataset …,{chosen.name}@FOLDER"
        dataset = YTVISDataset.from_config(make_config(config.name, config.flat(), keys), split, **places)
        return dataset.relabelled(self.labels[number], len(self.class_names)) if self.labels else dataset

    def check_scores(self) -> None:
        """Raises InputError if the first set has classes that the model has not, or has as one: scores of it would
        count them as missed."""
        kept = [label for label in self.labels[0] if label] if self.labels else []
        if self.labels and len(set(kept)) < len(self.labels[0]):
            raise InputError(
                f"--validation_epoch: --class_map joins or leaves out classes of {self.sets[0].name}, which is scored; "
                "train without validation, or name a set first whose classes all stay"
            )

    def report(self, parts: Sequence[ClipDataset | CropDataset], num_samples: int) -> None:
        """Logs each set's share of the `num_samples` of a run, if sets are joined; `parts` are their samples."""
        order = SampleOrder(list(map(len, parts)), 0, self.weights)
        for number, chosen in enumerate(self.sets if self.labels else ()):
            size, share = order.sizes[number], order.shares[number]
            own = {label for label in self.labels[number] if label}
            before = {label for labels in self.labels[:number] for label in labels if label}
            shared = ", ".join(short_name(self.class_names[label - 1]) for label in sorted(own & before))
            logger.info(
                "%s: %.1f %% of the samples, %.1f epochs of its %d key frames; %d of the %d classes%s",
                *(chosen.name, 100 * share, num_samples * share / size, size, len(own), len(self.class_names)),
                f", also of the sets before it: {excerpt(shared, 200) or 'none'}" if number else "",
            )


def read_class_maps(path: str | os.PathLike, classes: Mapping[str, Sequence[str]]) -> ClassMaps:
    """Reads a JSON file {set: {class of the set: class of the model}} for sets with `classes`; returns it with
    normalised names of the sets' classes.

    The name of a class of the model is new or another set's; empty, it leaves the class out. "*" stands for all classes
    of the set that are not named, and can only be empty.

    Raises:
        InputError: the file cannot be read, or names an unknown set or class.
    """
    content, maps = read_json(path), {}
    if not isinstance(content, dict) or not all(isinstance(entries, dict) for entries in content.values()):
        raise InputError(f"{path}: is not a class map: {{set: {{class of the set: class of the model}}}} as JSON")
    for given, entries in content.items():
        names = [name for name in classes if name.lower() == given.lower()]
        names = names or [name for name in classes if Path(name).name.lower() == given.lower()]
        if len(names) != 1:
            what = f"several sets of --train_dataset: {names}" if names else "none of the sets of --train_dataset"
            raise InputError(f"{path}: {shown(given)} is {what}{'' if names else nearest(given, classes)}")
        (name,) = names
        known = {normalised_name(own) for own in classes[name]}
        for own, new in entries.items():
            if own != OTHERS and normalised_name(own) not in known:
                raise InputError(f"{path}: {name} has no class {shown(own)}{nearest(own, classes[name])}")
            if not is_text(new) or (own == OTHERS and new):
                raise InputError(f'{path}: {name}: {shown(own)} is {shown(new)}; it takes a class name, or "" for none')
        normalised = {own if own == OTHERS else normalised_name(own): new.strip() for own, new in entries.items()}
        maps[name] = maps.get(name, {}) | normalised
    return maps


def join_classes(
    classes: Mapping[str, Sequence[str]], maps: ClassMaps, given: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Returns (the class names of the model, for each set the model's label 1…C of each of its classes or 0).

    `classes` are the classes of each set, in its order; those whose names, after `maps` (see `read_class_maps`), differ
    only in case, spaces, hyphens and underscores are one. The model has those of the first set, in its order, then
    the new ones of the next, and so on; with `given` it has these. Where the map of a set has "*", the set adds no
    class: those not named in the map that no set before it has are left out.

    Raises:
        InputError: a set has a class that `given` lacks, or keeps none.
    """
    joined = {normalised_name(name): name for name in given}
    labels = []
    for set_name, names in classes.items():
        own_map = maps.get(set_name, {})
        own_labels = []
        for name in names:
            new = own_map.get(normalised_name(name))
            if new is None:
                new = name if OTHERS not in own_map or normalised_name(name) in joined else ""
            if new and given and normalised_name(new) not in joined:
                raise InputError(
                    f"--train_dataset {set_name}: dataset.class_names lacks {shown(new)}; leave it out with --class_map"
                )
            if new:
                joined.setdefault(normalised_name(new), new)
            own_labels.append(list(joined).index(normalised_name(new)) + 1 if new else 0)
        if not any(own_labels):
            raise InputError(f"--train_dataset {set_name}: --class_map leaves no class of it")
        labels.append(tuple(own_labels))
    return tuple(joined.values()), tuple(labels)


def join(parts: Sequence[ClipDataset | CropDataset]) -> ClipDataset | CropDataset | JoinedSamples:
    """The samples of all sets one after another; those of one set as they are.

    A class that some sets label and others do not is unknown in the others (see `utils.structures.Clip.known`). One
    that no set labels is background in all.
    """
    if len(parts) == 1:
        return parts[0]
    labelled = torch.tensor([[True, *(i is not None for i in part.dataset.category_ids)] for part in parts])
    known = labelled | ~labelled.any(dim=0)
    return JoinedSamples(parts, None if known.all() else known)
