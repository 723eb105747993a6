"""Data sets and the iterators over them: decoding, augmentation, batches."""
