"""The learning rate over a training."""

import math
from collections.abc import Set

REFERENCE_IMAGES = 8  # in a batch of the recipe; its numbers of iterations are for this size
REFERENCE_CLIP_FRAMES = 2


class Schedule:
    """The learning rate of every iteration: linear warm-up, then steps, or half a cosine down to 0 at the last
    iteration.

    The recipe's lengths are for batches of 8 images, and are divided by images/8; each of the `batch_size` clips has
    `clip_frames` images (a frame of crops counts as a clip of two). In a run of fewer `iterations` than the recipe's,
    warm-up and steps keep their share of the run, unless their key is one of `given_keys`. The learning rate itself is
    multiplied by images/8 only with the quirk `lr_not_autoscaled` off.
    """

    def __init__(
        self,
        config,
        batch_size: int,
        iterations: int | None = None,
        given_keys: Set[str] = frozenset(),
        clip_frames: int = REFERENCE_CLIP_FRAMES,
    ):
        recipe = config.train
        factor = clip_frames * batch_size / REFERENCE_IMAGES
        self.recipe_iterations = round(recipe.iterations / factor)
        self.iterations = self.recipe_iterations if iterations is None else iterations
        self.share = min(1.0, self.iterations / max(self.recipe_iterations, 1))
        self.fixed = {key for key in ("train.warmup_iterations", "train.lr_steps") if key in given_keys}

        def length(key: str, value: int) -> int:
            return round(value / factor * (1 if key in self.fixed else self.share))

        self.warmup = length("train.warmup_iterations", recipe.warmup_iterations)
        self.steps = [length("train.lr_steps", step) for step in recipe.lr_steps]
        self.gamma = recipe.gamma
        self.cosine = recipe.lr_schedule == "cosine"
        self.learning_rate = recipe.learning_rate * (1 if config.quirks.lr_not_autoscaled else factor)

    def __str__(self) -> str:
        fall = "half a cosine" if self.cosine else f"×{self.gamma:g} at {self.steps}"
        text = f"learning rate {self.learning_rate:g}, warm-up over {self.warmup} iterations, {fall}"
        if self.share == 1:
            return text
        kept = f"; {' and '.join(sorted(self.fixed))} as given" if self.fixed else ""
        return f"{text} (the recipe's {self.recipe_iterations} iterations shortened to {self.share:.2%}{kept})"

    def __call__(self, iteration: int) -> float:
        if self.cosine:
            rate = self.learning_rate * (1 + math.cos(math.pi * iteration / self.iterations)) / 2
        else:
            rate = self.learning_rate * self.gamma ** sum(iteration >= step for step in self.steps)
        return rate * min(1.0, (iteration + 1) / max(self.warmup, 1))
