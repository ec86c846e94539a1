# Copyright (c) addp_mm contributors. Apache-2.0.
"""Progress of a generation by several processes."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from addp_mm.generation.image_folder.image_files import ImageFiles

_FORMAT = '{l_bar}{bar}| {n:.0f}/{total} images [{elapsed}, {remaining} left, {rate_fmt}]'
_LOG_SECONDS = 10.0
_COUNT_SECONDS = 2.0  # counting 50,000 files takes longer than a step of a small model


class Progress:
    """A bar of the images of all processes, with their rate and the time that is left.

    One process counts its steps. One of several counts the files in the folder.

    Args:
        files: The images.
        num_images: Images in the folder at the end.
        num_missing: Images that are missing at the start.
        alone: Whether there is only one process.
        shown: Whether this process shows the bar.
    """

    def __init__(self, files: ImageFiles, num_images: int, num_missing: int, alone: bool, shown: bool) -> None:
        self._files, self._alone, self._shown = files, alone, shown
        self._done = num_images - num_missing
        self._existing = 0 if alone else files.count()
        self._counted_at = -_COUNT_SECONDS
        self._bar = tqdm(
            total=num_images,
            initial=self._done,
            unit='img',
            disable=not shown,
            bar_format=_FORMAT,
            smoothing=0,  # rate and time left from the mean since the start
            mininterval=0.1 if sys.stderr.isatty() else _LOG_SECONDS,
        )

    def advance(self, images: float) -> None:
        """Count images of this process; a step of N counts as 1 / N of its images."""
        if self._alone:
            self._bar.update(images)
        elif time.monotonic() - self._counted_at >= _COUNT_SECONDS:
            self.count_files()

    def count_files(self) -> None:
        """Count the files of all processes now."""
        if self._shown and not self._alone:
            self._bar.update(self._done + self._files.count() - self._existing - self._bar.n)
            self._counted_at = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
