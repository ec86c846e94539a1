# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of any number of channels, as files and in shards."""

import tarfile

import numpy as np
from PIL import Image


def write_images(folder, channels, count=24, size=(40, 48)):
    """PNGs of one or three channels, arrays of any other number."""
    generator = np.random.default_rng(channels)
    folder.mkdir(parents=True)
    for index in range(count):
        values = generator.integers(0, 256, (5, 6, channels)).astype(np.uint8)
        values = values.repeat(size[0] // 5, 0).repeat(size[1] // 6, 1)
        if channels in (1, 3):
            Image.fromarray(values[..., 0] if channels == 1 else values).save(folder / f'{index:02d}.png')
        else:
            np.save(folder / f'{index:02d}.npy', values)
    return folder


def pack(folder, shards):
    """The images of a folder in two WebDataset shards."""
    shards.mkdir()
    for shard, names in enumerate(np.array_split(sorted(folder.iterdir()), 2)):
        with tarfile.open(shards / f'{shard}.tar', 'w') as archive:
            for name in names:
                archive.add(name, name.name)
    return shards
