# Copyright (c) addp_mm contributors. Apache-2.0.
"""The published code as a case of the tools that measure against it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import torch
from torch import Tensor

from addp_mm.benchmark.paired_times import Case
from addp_mm.benchmark.published_addp import PublishedADDP
from addp_mm.benchmark.without_patches import without_patches

SIZE = 256  # pixels of a side of its images


def published_case(args: Namespace, num_images: int, what: str, run: Callable[[PublishedADDP, Tensor], object]) -> Case:
    """A case of the published model, without addp_mm's patches.

    It has the precision of its training on the device: its autocast is that of CUDA, in
    float16, and acts on no other device.

    Args:
        args: Of a parser with :func:`~addp_mm.cli_options.add_published_options`, prepared by
            :func:`~addp_mm.benchmark.timed_tool.prepare`.
        num_images: Images of a step.
        what: What a step does, for the name of the case.
        run: One step; gets the model and images (N, 3, 256, 256) in [0, 1].
    """
    precision = 'float16' if args.device.type == 'cuda' else 'float32'
    published = PublishedADDP(args.published, args.published_model, args.device, precision)
    generator = torch.Generator().manual_seed(args.seed)
    images = torch.rand(num_images, 3, SIZE, SIZE, generator=generator).to(args.device)
    spans = None if args.no_components else published.spans()
    name = f'published {args.published_model} ({what})'
    return without_patches(Case(name, lambda: run(published, images), precision, num_images, spans))
