"""The learning rate over a training."""

REFERENCE_IMAGES = 8  # the recipe's iterations are told for batches of so many images


class Schedule:
    """The learning rate of every iteration: linear warm-up, then steps; lengths divided by the batch's size.

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
        self.learning_rate = recipe.learning_rate * (1 if config.quirks.lr_not_autoscaled else factor)

    def __call__(self, iteration: int) -> float:
        rate = self.learning_rate * self.gamma ** sum(iteration >= step for step in self.steps)
        return rate * min(1.0, (iteration + 1) / max(self.warmup, 1))
