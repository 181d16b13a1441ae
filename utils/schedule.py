"""The learning rate over a training."""

import math

REFERENCE_IMAGES = 8  # in a batch of the recipe: its numbers of iterations are for this size


class Schedule:
    """The learning rate of every iteration: linear warm-up, then steps, or half a cosine down to 0 at the last
    iteration; lengths divided by the batch's size.

    The recipe's lengths are for batches of 8 images. The learning rate itself is divided only with the quirk
    `lr_not_autoscaled` off (then multiplied by images/8).
    """

    def __init__(self, config, batch_size: int, iterations: int | None = None):
        recipe = config.train
        factor = 2 * batch_size / REFERENCE_IMAGES
        self.iterations = round(recipe.iterations / factor) if iterations is None else iterations
        self.warmup = round(recipe.warmup_iterations / factor)
        self.steps = [round(step / factor) for step in recipe.lr_steps]
        self.gamma = recipe.gamma
        self.cosine = recipe.lr_schedule == "cosine"
        self.learning_rate = recipe.learning_rate * (1 if config.quirks.lr_not_autoscaled else factor)

    def __str__(self) -> str:
        fall = "half a cosine" if self.cosine else f"×{self.gamma:g} at {self.steps}"
        return f"learning rate {self.learning_rate:g}, warm-up over {self.warmup} iterations, {fall}"

    def __call__(self, iteration: int) -> float:
        if self.cosine:
            rate = self.learning_rate * (1 + math.cos(math.pi * iteration / self.iterations)) / 2
        else:
            rate = self.learning_rate * self.gamma ** sum(iteration >= step for step in self.steps)
        return rate * min(1.0, (iteration + 1) / max(self.warmup, 1))
