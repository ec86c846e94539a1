# Copyright (c) addp_mm contributors. Apache-2.0.
"""What ``addp align`` is asked for: the configs of the methods, and their section ``alignment``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.alignment.pairs import SelectionRule
from addp_mm.config.config_file import load_config
from addp_mm.config.options import merge_options, split_options
from addp_mm.errors import ConfigError, suggest
from addp_mm.stages.stage import differences

SECTION = 'alignment'
POSITIVE, NEGATIVE, BASE = 'positive', 'negative', 'base'
#: Begins the options of the config that trains the positive and the negative model.
LIKELIHOOD = 'likelihood'
#: Samplings with which the models are compared have the seed of the training and this.
FRESH_SEEDS = 1_000_000
_FLAGS = ('amp', 'constant_temperature', 'invert_mask')
_SAMPLING = (
    *('batch_size', 'classes', 'steps', 'schedule', 'order', 'temperature', 'top_p', 'top_k', 'guidance'),
    *('guidance_shape', 'amp', 'constant_temperature'),
)
_INPAINTING = ('mask', 'box', 'outpaint', 'invert_mask', 'num_samples')


@dataclass(frozen=True)
class Comparison:
    """How the models are compared, on images of fresh seeds.

    Args:
        num_images: Images of each model; with inpainting, as many as are sampled for the training.
            Defaults to 320.
        measures: Further rewards by name, which are measured only. Defaults to {}: none.
        extractor: See :func:`~addp_mm.evaluation.build_extractor`: the network of the Fréchet
            distance and of the diversity. Defaults to 'addp-vit-nano-p8'.
        reference: Folder of real images, or statistics. Defaults to None: no Fréchet distance.
    """

    num_images: int = 320
    measures: Mapping[str, Any] = field(default_factory=dict)
    extractor: str | Mapping[str, Any] = 'addp-vit-nano-p8'
    reference: str | None = None


@dataclass(frozen=True)
class Plan:
    """What to do.

    Attributes:
        base_config: Config of the generator.
        base_checkpoint: Its weights.
        num_images: Images that are sampled for the training.
        sampling: Options of ``addp generate``, or ``addp inpaint``.
        inpainting: The images and other options of ``addp inpaint``; None: whole images are
            generated.
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
    inpainting: tuple[str, ...] | None
    reward: Mapping[str, Any]
    rule: SelectionRule
    likelihood: Config
    contrast: float
    comparison: Comparison
    methods: Mapping[str, Config]

    @property
    def has_weights(self) -> bool:
        """Whether a method needs token scores, and so a negative model."""
        return any(map(is_weighted, self.methods.values()))


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
    likelihood = load_config(_needed(section, 'likelihood'))
    merge_options(likelihood, by_part.get(LIKELIHOOD, ()))
    return _plan(section, likelihood, methods)


def method_names(paths: Sequence[str]) -> list[str]:
    """The part of each config's name before the first ``_``; the whole name if two are equal.

    Raises:
        ConfigError: A config is given twice, or its name is that of another stage.
    """
    stems = [Path(path).stem if path.endswith('.py') else path.rpartition('::')[2] for path in paths]
    short = Counter(stem.partition('_')[0] for stem in stems)
    names = [stem if short[stem.partition('_')[0]] > 1 else stem.partition('_')[0] for stem in stems]
    taken = [name for name in names if names.count(name) > 1 or name in (BASE, POSITIVE, NEGATIVE, 'samples')]
    if taken:
        raise ConfigError(
            f'CONFIG {taken[0]}: each method needs a name of its own, which is not {BASE}, {POSITIVE}, {NEGATIVE} or '
            'samples. Rename the file'
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
    known = ('base', 'sampling', 'inpainting', 'reward', 'selection', 'likelihood', 'contrast', 'comparison')
    _refuse_unknown(section, known, SECTION)
    base, sampling = _needed(section, 'base'), dict(_needed(section, 'sampling'))
    num_images = sampling.pop('num_images', 640)
    try:
        rule, comparison = SelectionRule(**section.get('selection', {})), Comparison(**section.get('comparison', {}))
    except TypeError as error:
        raise ConfigError(f'{SECTION}.selection or {SECTION}.comparison has an unknown option: {error}') from error
    return Plan(
        _needed(base, 'config', f'{SECTION}.base'),
        _needed(base, 'checkpoint', f'{SECTION}.base'),
        num_images,
        tuple(_as_options(sampling, _SAMPLING, f'{SECTION}.sampling')),
        _inpainting(section.get('inpainting')),
        _needed(section, 'reward'),
        rule,
        likelihood,
        section.get('contrast', 1.0),
        comparison,
        methods,
    )


def _inpainting(section: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    if section is None:
        return None
    name, rest = f'{SECTION}.inpainting', dict(section)
    image = _needed(rest, 'image', name)
    del rest['image']
    if not any(rest.get(key) for key in ('mask', 'box', 'outpaint')):
        raise ConfigError(f'{name} needs mask, box or outpaint: what to generate')
    return image, *_as_options(rest, _INPAINTING, name)


def _as_options(section: Mapping[str, Any], known: Sequence[str], name: str) -> list[str]:
    _refuse_unknown(section, known, name)
    options: list[str] = []
    for key, value in section.items():
        option = '--' + key.replace('_', '-')
        if key in _FLAGS:
            options += [option] if value else []
        elif value is not None:
            values = [str(part) for part in value] if isinstance(value, (list, tuple)) else [str(value)]
            options += [option, *([','.join(values)] if key in ('box', 'outpaint') else values)]
    return options


def _needed(section: Mapping[str, Any], key: str, name: str = SECTION) -> Any:
    if section.get(key) is None:
        raise ConfigError(f'{name}.{key} is missing: see configs/_base_/alignment')
    return section[key]


def _refuse_unknown(section: Mapping[str, Any], known: Sequence[str], name: str) -> None:
    for key in section:
        if key not in known:
            raise ConfigError(f'{name}.{key} is unknown{suggest(key, known)}; there are {", ".join(known)}')
