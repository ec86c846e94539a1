# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of ADDPViT: architectures, mmpretrain's names, and checks."""

from collections.abc import Mapping, Sequence

from addp_mm.models.layers import OptionError
from addp_mm.models.layers.lora import LORA_OR_FROZEN_STAGES

ARCHS: dict[str, dict] = {
    'nano': dict(embed_dims=128, num_layers=6, num_heads=4),
    'tiny': dict(embed_dims=192, num_layers=12, num_heads=3),
    'small': dict(embed_dims=384, num_layers=12, num_heads=6),
    'base': dict(embed_dims=768, num_layers=12, num_heads=12),
    'large': dict(embed_dims=1024, num_layers=24, num_heads=16),
    'huge': dict(embed_dims=1280, num_layers=32, num_heads=16),
}
# mmpretrain's other names of the same architectures
ARCH_ALIASES = {
    'b': 'base',
    'l': 'large',
    'h': 'huge',
    'deit-t': 'tiny',
    'deit-tiny': 'tiny',
    'deit-s': 'small',
    'deit-small': 'small',
    'dinov2-s': 'small',
    'dinov2-small': 'small',
    'deit-b': 'base',
    'deit-base': 'base',
}
OUT_TYPES = ('cls_token', 'avg_featmap', 'featmap', 'raw')


def arch_settings(arch: str | Mapping) -> dict:
    """Settings of an architecture, completed and checked.

    Args:
        arch: A name of this package or of mmpretrain, or a mapping with ``embed_dims``,
            ``num_layers``, ``num_heads`` and optionally ``mlp_ratio`` or mmpretrain's
            ``feedforward_channels``.

    Returns:
        ``embed_dims``, ``num_layers``, ``num_heads`` and ``mlp_ratio``.

    Raises:
        OptionError: The name is unknown, or the keys are wrong or contradict each other.
    """
    if isinstance(arch, str):
        if arch == 's':
            raise OptionError(
                "arch='s' is ambiguous: write 'small' or 'deit-s' for 12 blocks of 384 channels. For the 8 blocks of "
                "768 channels that mmpretrain calls 's', give a dict of embed_dims, num_layers and num_heads"
            )
        name = ARCH_ALIASES.get(arch, arch)
        if name not in ARCHS:
            raise OptionError(f'arch must be one of {(*ARCHS, *ARCH_ALIASES)} or a dict, got {arch!r}')
        arch = ARCHS[name]
    settings = dict(arch)
    hidden = settings.pop('feedforward_channels', None)
    needed = {'embed_dims', 'num_layers', 'num_heads'}
    if not needed <= set(settings) <= needed | {'mlp_ratio'}:
        raise OptionError(
            f'an arch dict needs {sorted(needed)} and may have mlp_ratio or feedforward_channels; got {sorted(arch)}'
        )
    ratio = None if hidden is None else hidden / settings['embed_dims']
    ratio = same_option('mlp_ratio', settings.get('mlp_ratio'), 'feedforward_channels / embed_dims', ratio)
    return {**settings, 'mlp_ratio': 4.0 if ratio is None else ratio}


def same_option(name: str, value: float | None, other_name: str, other_value: float | None) -> float | None:
    """The value of an option with two names; None if neither is given.

    Raises:
        OptionError: Both are given with different values.
    """
    if value is not None and other_value is not None and value != other_value:
        raise OptionError(
            f'{name}={value} and {other_name}={other_value} are two names of one option: give one of them'
        )
    return other_value if value is None else value


def layer_scale_start(layer_scale_init: float | None, layer_scale_init_value: float | None) -> float | None:
    """Initial value of layer scale from both names; None without layer scale.

    mmpretrain's ``layer_scale_init_value`` is 0 without layer scale.
    """
    if layer_scale_init is None and layer_scale_init_value == 0:
        return None
    return same_option('layer_scale_init', layer_scale_init, 'layer_scale_init_value', layer_scale_init_value)


def norm_epsilon(norm_eps: float | None, norm_cfg: Mapping | None) -> float:
    """Epsilon of the LayerNorms from ``norm_eps`` or mmpretrain's ``norm_cfg``; else 1e-6.

    Raises:
        OptionError: ``norm_cfg`` is not that of a LayerNorm, or both differ.
    """
    if norm_cfg is not None and (norm_cfg.get('type') != 'LN' or not set(norm_cfg) <= {'type', 'eps'}):
        raise OptionError(f"norm_cfg must be dict(type='LN', eps=…): ADDPViT has LayerNorms only; got {dict(norm_cfg)}")
    eps = same_option('norm_eps', norm_eps, 'norm_cfg.eps', None if norm_cfg is None else norm_cfg.get('eps'))
    return 1e-6 if eps is None else eps


def ascending_indices(
    indices: int | Sequence[int], num_layers: int, name: str, layers: str = 'blocks'
) -> tuple[int, ...]:
    """Block numbers counted from the start.

    Args:
        indices: One number or several; negative ones count from the end.
        num_layers: Number of blocks.
        name: Name of the option, for errors.
        layers: What they number, for errors. Defaults to 'blocks'.

    Raises:
        OptionError: They are no whole numbers, a number is out of range, or they do not ascend; or
            ``out_indices`` is empty.
    """
    given = (indices,) if isinstance(indices, int) else tuple(indices)
    if any(not isinstance(i, int) for i in given):
        raise OptionError(f'{name} must be whole numbers of the {layers}, got {indices!r}')
    if any(not -num_layers <= i < num_layers for i in given):
        raise OptionError(
            f'{name} {given} must be in [{-num_layers}, {num_layers - 1}]: there are {num_layers} {layers}'
        )
    counted = tuple(i % num_layers for i in given)
    if list(counted) != sorted(set(counted)):
        raise OptionError(f'{name} must ascend without repetition, got {given}')
    if name == 'out_indices' and not counted:
        raise OptionError(f'out_indices must name at least one of the {layers}')
    return counted


def grid_of(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Height and width of an image in patches.

    Raises:
        OptionError: A side is not a multiple of the patch.
    """
    h, w = (img_size, img_size) if isinstance(img_size, int) else img_size
    if h % patch_size or w % patch_size:
        raise OptionError(f'img_size {h} x {w} must be multiples of patch_size {patch_size}')
    return h // patch_size, w // patch_size


def check_options(
    num_layers: int,
    out_type: str,
    with_cls_token: bool,
    num_register_tokens: int,
    window_size: int,
    global_blocks: Sequence[int],
    use_rel_pos: bool,
    use_rel_pos_table: bool,
    drop_path_rate: float,
    frozen_stages: int,
    interpolate_mode: str,
    lora: Mapping | None,
) -> None:
    """Check options of ADDPViT that are out of range or contradict each other.

    Raises:
        OptionError: The message names the options.
    """
    problems = (
        (out_type not in OUT_TYPES, f'out_type must be one of {OUT_TYPES}, got {out_type!r}'),
        (out_type == 'cls_token' and not with_cls_token, "out_type='cls_token' needs with_cls_token=True"),
        (num_register_tokens < 0, f'num_register_tokens must not be negative, got {num_register_tokens}'),
        (
            window_size and (with_cls_token or num_register_tokens),
            'windows accept neither class nor register tokens: with window_size set with_cls_token=False and '
            'num_register_tokens=0',
        ),
        (
            use_rel_pos and use_rel_pos_table,
            'relative positions are decomposed (use_rel_pos) or a table (use_rel_pos_table), not both',
        ),
        (
            use_rel_pos_table and num_register_tokens,
            'use_rel_pos_table has no entries for register tokens: set num_register_tokens=0',
        ),
        (global_blocks and not window_size, 'global_blocks names blocks without windows, but window_size is 0'),
        (not 0 <= drop_path_rate < 1, f'drop_path_rate must be in [0, 1), got {drop_path_rate}'),
        (not -1 <= frozen_stages <= num_layers, f'frozen_stages must be in [-1, {num_layers}], got {frozen_stages}'),
        (lora is not None and frozen_stages >= 0, LORA_OR_FROZEN_STAGES),
        (
            interpolate_mode != 'bicubic',
            f"interpolate_mode must be 'bicubic', got {interpolate_mode!r}; pos_antialias=True selects timm's filter",
        ),
    )
    for is_wrong, message in problems:
        if is_wrong:
            raise OptionError(message)
