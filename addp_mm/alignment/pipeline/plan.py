# Copyright (c) addp_mm contributors. Apache-2.0.
"""What ``addp align`` is asked for: the configs of the methods, and their section ``alignment``."""

from __future__ import annotations

import math
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config

from addp_mm.alignment.pairs import SelectionRule
from addp_mm.alignment.pipeline.holes import Holes, read_holes
from addp_mm.alignment.pipeline.sections import (
    SECTION,
    as_options,
    needed,
    part_of,
    refuse_unknown,
    require_dict,
    require_number,
)
from addp_mm.cli_options import ToolParser, number
from addp_mm.config.config_file import load_config
from addp_mm.config.options import merge_options, split_options
from addp_mm.errors import ConfigError, suggest
from addp_mm.sampling_options import add_sampling_options, check_guidance, schedule_of
from addp_mm.stages.stage import differences

POSITIVE, NEGATIVE, BASE = 'positive', 'negative', 'base'
#: Begins the options of the config that trains the positive and the negative model.
LIKELIHOOD = 'likelihood'
SAMPLES, SELECTION, COMPARISON, INPAINTING = 'samples', 'selection', 'comparison', 'inpainting'
#: Samplings with which the models are compared have the seed of the training and this.
FRESH_SEEDS = 1_000_000
_RESERVED = (SECTION, LIKELIHOOD, BASE, POSITIVE, NEGATIVE, SAMPLES, SELECTION, COMPARISON, 'logs')
_COLUMNS = ('reward', 'better_than_base', 'frechet_distance', 'diversity')


@dataclass(frozen=True)
class Comparison:
    """How the models are compared, on images of fresh seeds.

    Args:
        num_images: Images of each model; not used with inpainting. Defaults to 320.
        measures: Further rewards by name, which are measured only. Defaults to {}: none.
        extractor: See :func:`~addp_mm.evaluation.build_extractor`: the network of the Fréchet
            distance and of the diversity. Defaults to 'addp-vit-nano-p8'.
        reference: Folder of real images, or statistics. Defaults to None: no Fréchet distance.
    """

    num_images: int = 320
    measures: Mapping[str, Any] = field(default_factory=dict)
    extractor: str | Mapping[str, Any] = 'addp-vit-nano-p8'
    reference: str | None = None

    def __post_init__(self) -> None:
        require_number(self.num_images, 2, f'{SECTION}.comparison.num_images')
        require_dict(self.measures, f'{SECTION}.comparison.measures')
        for name in self.measures:
            if name in _COLUMNS:
                raise ConfigError(
                    f'{SECTION}.comparison.measures.{name}: the table has a column of that name. Choose another one'
                )


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        base_config: Config of the generator.
        base_checkpoint: Its weights.
        num_images: Images that are sampled for the training.
        sampling: Options of ``addp generate``, or ``addp inpaint``.
        steps: Steps of the sampling.
        classes: Classes of the sampling as they were given; None if there are none.
        holes: Holes that are filled; None: whole images are generated.
        reward: Config of the reward.
        rule: Which samples are right, which are wrong.
        likelihood: Config of the positive and the negative model.
        contrast: See :func:`~addp_mm.alignment.contrastive_scores`.
        comparison: How the models are compared.
        methods: Config of each method by its name.
    """

    base_config: str
    base_checkpoint: str
    num_images: int
    sampling: tuple[str, ...]
    steps: int
    classes: Sequence[str] | None
    holes: Holes | None
    reward: Mapping[str, Any]
    rule: SelectionRule
    likelihood: Config
    contrast: float
    comparison: Comparison
    methods: Mapping[str, Config]

    @property
    def num_samples(self) -> int:
        """Images that are sampled for the training; of holes, at most so many."""
        return self.num_images if self.holes is None else self.holes.training.num_images

    @property
    def num_compared(self) -> int:
        """Images of each model for the comparison; of holes, at most so many."""
        return self.comparison.num_images if self.holes is None else self.holes.compared.num_images

    @property
    def has_weights(self) -> bool:
        """Whether a method needs token scores, and so a negative model."""
        return any(map(is_weighted, self.methods.values()))


@dataclass(frozen=True)
class Contents:
    """Fingerprints of the weights and images that a plan names by their paths.

    Attributes:
        base: Of the weights of the base.
        reward: Of the weights of the reward; None if it has none.
        comparison: Of what the comparison uses, by its key in the section.
    """

    base: str
    reward: str | None = None
    comparison: Mapping[str, str] = field(default_factory=dict)


def is_weighted(cfg: Config) -> bool:
    """Whether a method needs token scores."""
    return cfg.model.get('weighted', 'none') != 'none'


def read_plan(paths: Sequence[str], options: Sequence[str] = ()) -> Plan:
    """Read the configs of the methods.

    Args:
        paths: Files or names of shipped configs. They have the same section ``alignment``.
        options: ``PART.KEY=VALUE``; the part is 'alignment', 'likelihood' or the name of a method.

    Raises:
        ConfigError: A config has no section ``alignment``, or one of these options is wrong.
    """
    methods = dict(zip(method_names(paths), map(load_config, paths), strict=True))
    for name, cfg in methods.items():
        if not isinstance(cfg.get(SECTION), Mapping):
            raise ConfigError(
                f'{name}: the config has no section {SECTION} with base, sampling, reward and likelihood: see '
                'configs/align, and docs/alignment.md'
            )
    by_part = _options_by_part(options, list(methods))
    for name, cfg in methods.items():
        merge_options(cfg, by_part.get(name, ()))
        merge_options(cfg, [f'{SECTION}.{option}' for option in by_part.get(SECTION, ())], read=[SECTION])
    section = _common_section(methods)
    likelihood = load_config(str(needed(section, LIKELIHOOD)))
    merge_options(likelihood, by_part.get(LIKELIHOOD, ()))
    return _plan(section, likelihood, methods)


def method_names(paths: Sequence[str]) -> list[str]:
    """The part of each config's name before the first ``_``; the whole name if two are equal.

    Raises:
        ConfigError: A config is given twice, or its name is that of another folder or part.
    """
    stems = [Path(path).stem if path.endswith('.py') else path.rpartition('::')[2] for path in paths]
    short = Counter(stem.partition('_')[0] for stem in stems)
    names = [stem if short[stem.partition('_')[0]] > 1 else stem.partition('_')[0] for stem in stems]
    taken = [name for name in names if names.count(name) > 1 or name in _RESERVED]
    if taken:
        raise ConfigError(
            f'CONFIG {taken[0]}: each method needs a name of its own, which is none of {", ".join(_RESERVED)}. Give '
            'a copy of the file under another name'
        )
    return names


def _options_by_part(options: Sequence[str], methods: Sequence[str]) -> dict[str, list[str]]:
    parts, found = [SECTION, LIKELIHOOD, *methods], {}  # type: list[str], dict[str, list[str]]
    for option in options:
        part, dot, rest = option.partition('.')
        if part not in parts or not dot:
            raise ConfigError(
                f'--cfg-options {option}: begin with the part, such as {SECTION}.sampling.num_images=64; parts are '
                f'{", ".join(parts)}{suggest(part, parts)}'
            )
        found.setdefault(part, []).append(rest)
    for own in found.values():
        split_options(own)
    return found


def _common_section(methods: Mapping[str, Config]) -> dict[str, Any]:
    (first, cfg), *others = methods.items()
    section = cfg[SECTION].to_dict()
    for name, other in others:
        if changed := list(differences(section, other[SECTION].to_dict(), SECTION)):
            raise ConfigError(
                f'{first} and {name} differ in {changed[0]}: methods that are compared have the same samples and '
                'rewards. Give them to two runs'
            )
    return section


def _plan(section: dict[str, Any], likelihood: Config, methods: Mapping[str, Config]) -> Plan:
    known = ('base', 'sampling', INPAINTING, 'reward', SELECTION, LIKELIHOOD, 'contrast', COMPARISON)
    refuse_unknown(section, known, SECTION)
    base = part_of(section, 'base', ('config', 'checkpoint'))
    sampling = dict(require_dict(needed(section, 'sampling'), f'{SECTION}.sampling'))
    num_images = require_number(sampling.pop('num_images', 640), 2, f'{SECTION}.sampling.num_images')
    holes = read_holes(section.get(INPAINTING), f'{SECTION}.{INPAINTING}')
    arguments, parsed = _sampling(sampling, holes is not None)
    contrast = section.get('contrast', 1.0)
    if isinstance(contrast, bool) or not isinstance(contrast, (int, float)) or not 0 <= contrast < math.inf:
        raise ConfigError(f'{SECTION}.contrast must be a finite number of at least 0, got {contrast!r}')
    rule = part_of(section, SELECTION, [option.name for option in fields(SelectionRule)], optional=True)
    comparison = part_of(section, COMPARISON, [option.name for option in fields(Comparison)], optional=True)
    try:
        selection_rule = SelectionRule(**rule)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f'{SECTION}.{SELECTION}: {error}') from error
    return Plan(
        needed(base, 'config', f'{SECTION}.base'),
        needed(base, 'checkpoint', f'{SECTION}.base'),
        num_images,
        arguments,
        parsed.steps,
        parsed.classes,
        holes,
        require_dict(needed(section, 'reward'), f'{SECTION}.reward'),
        selection_rule,
        likelihood,
        contrast,
        Comparison(**comparison),
        methods,
    )


def _sampling(section: Mapping[str, Any], inpaints: bool) -> tuple[tuple[str, ...], Namespace]:
    """The options of the command, checked as the command checks them, and what it parses."""
    name, options = f'{SECTION}.sampling', as_options(section)
    parser = _SamplingParser(prog=name)
    add_sampling_options(parser)
    parser.add_argument('--batch-size', type=number(int, 1))
    if not inpaints:
        parser.add_argument('--amp', action='store_true')
    args = parser.parse_args(options)
    if '--seed' in options:
        raise ConfigError(f'{name}.seed: the seeds are those of --seeds')
    check_guidance(parser, args)
    try:
        schedule_of(args)
    except ValueError as error:
        raise ConfigError(f'{name}: {error}') from error
    return tuple(options), args


class _SamplingParser(ToolParser):
    """Its errors name the section of the config."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f'{self.prog}: {message} (options of addp generate, - as _)')
