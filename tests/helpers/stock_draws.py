"""What MXNet's ``ImageRecordIter`` draws for each image, foretold: its generator is mt19937 of the C++ standard, which
NumPy has too, and with ``seed_aug`` it is seeded anew for each image of a batch.

How numbers are made from its bits is that of the libstdc++ that MXNet's wheels were built with.
"""

import numpy as np

from train.data.image_augment import (
    AREA,
    ASPECT,
    ATTEMPTS,
    COLOURS,
    DRAWS,
    LEFT,
    MIRROR,
    NOISE,
    ORDER,
    ORDERS,
    SWAP,
    TOP,
    random_box,
)

SEED_OFFSET = 111  # MXNet adds it to each seed
NUMBER = np.float32


class Generator:
    """std::mt19937 and the distributions that are drawn from it."""

    def __init__(self, seed):
        self._bits = np.random.RandomState(seed)
        self._saved = None

    def integer(self):
        """32 random bits."""
        return int(self._bits.randint(0, 2**32, dtype=np.uint64))

    def uniform(self):
        """std::uniform_real_distribution<float>(0, 1)"""
        return min(NUMBER(self.integer()) / NUMBER(2**32), np.nextafter(NUMBER(1), NUMBER(0)))

    def below(self, count):
        """std::uniform_int_distribution(0, count - 1)"""
        scale = (2**32 - 1) // count
        while True:
            number = self.integer()
            if number < scale * count:
                return number // scale

    def normal(self):
        """std::normal_distribution<float>(0, 1): Marsaglia's polar method, which makes two at a time."""
        if self._saved is not None:
            saved, self._saved = self._saved, None
            return saved
        square = NUMBER(0)
        while not 0 < square <= 1:
            x, y = (NUMBER(2) * self.uniform() - NUMBER(1) for _ in range(2))
            square = x * x + y * y
        factor = np.sqrt(NUMBER(-2) * np.log(square) / square)
        self._saved = x * factor
        return y * factor

    def coin(self):
        """std::bernoulli_distribution(0.5), which takes 64 bits."""
        low = self.integer()
        return low + self.integer() * 2**32 < 2**63

    def shuffled(self, count):
        """std::shuffle of 0 … count - 1: a tuple."""
        values = list(range(count))
        for last in range(1, count):
            other = self.below(last + 1)
            values[last], values[other] = values[other], values[last]
        return tuple(values)


def row(seed_aug, number, height, width, augmentation):
    """What is drawn for image ``number`` of a batch, (height, width) pixels, as a row of draws (DRAWS,) that makes
    ``RandomView`` decide the same.
    """
    generator = Generator(seed_aug + number + SEED_OFFSET)
    draws = np.full(DRAWS, 0.5)
    draws[AREA : AREA + ATTEMPTS] = 1e9  # not yet drawn: this never fits in
    for attempt in range(ATTEMPTS):
        for what in (AREA, ASPECT, SWAP):
            draws[what + attempt] = generator.uniform()
        box = random_box(height, width, draws, augmentation, NUMBER)
        if box:
            draws[TOP], draws[LEFT] = (
                (generator.below(rest + 1) + 0.5) / (rest + 1) for rest in (height - box[2], width - box[3])
            )
            break
    if augmentation.brightness or augmentation.contrast or augmentation.saturation:
        draws[COLOURS : COLOURS + 3] = [generator.uniform() for _ in range(3)]
        draws[ORDER] = (ORDERS.index(generator.shuffled(3)) + 0.5) / len(ORDERS)
    if augmentation.pca_noise:
        draws[NOISE:] = [generator.normal() for _ in range(3)]
    if augmentation.mirror:
        draws[MIRROR] = 0.25 if generator.coin() else 0.75
    return draws
