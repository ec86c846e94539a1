# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of tools that sample from a model. It imports only the standard library."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from addp_mm.cli_options import number

if TYPE_CHECKING:
    from torch import nn

    from addp_mm.generation import Guidance, SamplingSchedule


#: What each option does, for the help of the tools and for the page.
WORDS = dict(
    steps='alternating steps',
    schedule='how the share of masked tokens falls from step to step; power:P is 1 - progress^P',
    order='keep the most confident tokens of a step, or the next ones of a Halton sequence',
    temperature='scale of the noise on the confidence',
    top_p='sample from the most likely codes that sum to this probability',
    top_k='sample from so many most likely codes',
    seed='seed of all random numbers',
    guidance='scale of the classifier-free guidance towards the classes',
    guidance_shape='how the guidance grows from step to step',
)


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the schedule, the seed, the classes and the guidance.

    Args:
        parser: The tool's parser.
    """
    parser.add_argument('--steps', type=number(int, 1), default=20, help=f'{WORDS["steps"]} [20]')
    parser.add_argument(
        '--schedule', default='cosine', metavar='{cosine,linear,power:P}', help=f'{WORDS["schedule"]} [cosine]'
    )
    parser.add_argument(
        '--order', choices=['confidence', 'halton'], default='confidence', help=f'{WORDS["order"]} [confidence]'
    )
    parser.add_argument('--temperature', type=number(float, 0), default=6.0, help=f'{WORDS["temperature"]} [6.0]')
    parser.add_argument('--constant-temperature', action='store_true', help='do not anneal the temperature to zero')
    parser.add_argument('--top-p', type=number(float, 0, 1), default=1.0, help=f'{WORDS["top_p"]} [1.0]')
    parser.add_argument('--top-k', type=number(int, 1), help=f'{WORDS["top_k"]} [all]')
    parser.add_argument('--seed', type=number(int, -(2**63), 2**64 - 1), default=0, help=f'{WORDS["seed"]} [0]')
    parser.add_argument(
        '--classes',
        nargs='+',
        action='extend',
        metavar='CLASS',
        help='for a model with classes: numbers or names, which the images have in turn, or all [no class]',
    )
    parser.add_argument(
        '--guidance', type=number(float, 0), default=0.0, metavar='SCALE', help=f'{WORDS["guidance"]} [0: none]'
    )
    parser.add_argument(
        '--guidance-shape',
        choices=['constant', 'linear', 'cosine'],
        default='constant',
        help=f'{WORDS["guidance_shape"]} [constant]',
    )


def check_guidance(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with an error if there is a guidance without classes."""
    if args.guidance and not args.classes:
        parser.error('--guidance needs --classes, towards which it guides')


def schedule_of(args: argparse.Namespace) -> SamplingSchedule:
    """The schedule of the parsed options.

    Raises:
        ConfigError: An option is out of its range.
    """
    from addp_mm.generation import SamplingSchedule

    return SamplingSchedule(
        num_steps=args.steps,
        ratio=args.schedule,
        temperature=args.temperature,
        anneal=not args.constant_temperature,
        order=args.order,
        top_p=args.top_p,
        top_k=args.top_k,
    )


def guidance_of(args: argparse.Namespace) -> Guidance:
    """The guidance of the parsed options."""
    from addp_mm.generation import Guidance

    return Guidance(args.guidance, args.guidance_shape)


def classes_of(args: argparse.Namespace, num_classes: int) -> list[int] | None:
    """Classes that the images have in turn; None if they have none.

    Names are those of the training data of ``args.config``.

    Args:
        args: The parsed options.
        num_classes: Classes of the model; 0 if it is unconditional.

    Raises:
        ConfigError: The model has no classes, or not one of these.
    """
    from addp_mm.generation.class_choice import choose_classes
    from addp_mm.label_maps.config_classifier import class_names

    if not args.classes:
        return None
    return choose_classes(args.classes, num_classes, class_names(args.config))


def settings_of(args: argparse.Namespace, model: nn.Module, classes: list[int] | None) -> dict:
    """The weights, and the options of :func:`add_sampling_options`, which determine the pixels.

    They are the record of an output folder: all images of a folder have the same.

    Args:
        args: The parsed options, with ``config``.
        model: The model. Its tokenizer and predictor may be from other files than its checkpoint.
        classes: Result of :func:`classes_of`.
    """
    from addp_mm.checkpoints.fingerprint import module_fingerprint

    return dict(
        config=Path(args.config).name,
        weights=module_fingerprint(model),
        steps=args.steps,
        schedule=args.schedule,
        order=args.order,
        temperature=args.temperature,
        constant_temperature=args.constant_temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        seed=args.seed,
        classes='all' if args.classes == ['all'] else classes,
        guidance=args.guidance,
        guidance_shape=args.guidance_shape if args.guidance else None,
    )
