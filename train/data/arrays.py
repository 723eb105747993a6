"""Images and labels in arrays: more images than memory holds, and the label of what is no image."""

import numpy as np

# A label that no class has, for what only fills up a batch: who forgets to leave it out gets a worse score, never a
# better one.
NO_CLASS = -1


class Recycled:
    """``count`` images that are a few of them, ``pool`` (K, C, H, W), again and again: a data set of any size in little
    memory.
    """

    def __init__(self, pool, count):
        self.pool = pool
        self.shape = (count, *pool.shape[1:])

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        return self.pool[np.asarray(index) % len(self.pool)]
