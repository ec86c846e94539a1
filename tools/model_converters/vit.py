# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a ViT of another project to addp_mm.ADDPViT.

SRC has the layout of MAE, BEiT (v2), DeiT (III), DINOv2, or of timm's or mmpretrain's
VisionTransformer. The layout is recognised, and sizes are inferred from the shapes. Heads and
decoders are left out; an unknown key is an error. The weights are written if ADDPViT and the
implementation of timm or mmpretrain give the same results. A config is written next to DST, with
the same name and the ending .json, for ``_base_`` or ``MODELS.build``: {"backbone": {…}}.
"""

import re

from addp_mm.cli_options import number
from addp_mm.conversion.command import converter_parser, read_source
from addp_mm.errors import exit_on_interrupt, exit_on_user_error, first_few


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(__doc__, 'checkpoint (.pth or .safetensors), e.g. mae_pretrain_vit_base.pth')
    parser.add_argument(
        '--prefix',
        help='use only keys with this prefix, e.g. model. of Lightning or teacher.backbone. of DINOv2; '
        'it may start with the name of a dict in the file, e.g. model_ema.',
    )
    parser.add_argument(
        '--num-heads',
        type=number(int, 1),
        help='attention heads, which cannot be inferred from the weights; default: those of the standard architectures '
        '(tiny to huge), or of the relative positions',
    )
    parser.add_argument(
        '--img-size',
        type=number(int, 1),
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='pixels; only needed if the positions do not form a square map, or only seem to form one: 196 '
        'are read as 14 x 14 patches, not as 13 x 15 and a class token',
    )
    return parser.parse_args(argv)


def read(src, prefix):
    """Read a checkpoint; return its state dict and layout."""
    from addp_mm.layouts import LAYOUTS, advice_on_prefix, find_layout
    from addp_mm.layouts.key_rules import dotted

    prefix = dotted(prefix)
    weights, source = read_source(src, prefix)
    layout = find_layout(source, {'backbone'})
    if layout is None:
        known = ', '.join(layout.name for layout in LAYOUTS if layout.component == 'backbone')
        raise ValueError(
            f'{src} has no known layout of a ViT ({known}){f" under {prefix}" if prefix else ""}. It has '
            f'{first_few(weights)}. {advice_on_prefix(weights, {"backbone"})}'
        )
    return source, layout


def grid_of(source, img_size):
    """(height, width) of images of ``img_size`` in patches; None for None."""
    if img_size is None:
        return None
    patch_size = next(
        value.shape[-1] for key, value in source.items() if re.search(r'patch_embed\.proj(ection)?\.weight$', key)
    )
    if any(side % patch_size for side in img_size):
        raise ValueError(f'--img-size {img_size[0]} {img_size[1]} does not fit patches of {patch_size} pixels')
    return tuple(side // patch_size for side in img_size)


def describe_positions(source, vit, img_size):
    """Describe how the positions were read, and the other possibility."""
    positions = next((value for key, value in source.items() if re.fullmatch(r'(backbone\.)?pos_embed', key)), None)
    if positions is None:
        return 'no absolute positions'
    rows, (height, width) = positions.shape[1], vit.grid_size
    text = f'{rows} positions, read as {height} x {width} patches'
    if rows > height * width:
        return f'{text} and {rows - height * width} before them'
    if img_size or not vit.with_cls_token:
        return text
    # a square minus one is always (side - 1) * (side + 1)
    sides = ((height - 1) * vit.patch_size, (width + 1) * vit.patch_size)
    return (
        f'{text} and none for the class token. If they are a class token and a map that is not square, give e.g. '
        f'--img-size {sides[0]} {sides[1]} or {sides[1]} {sides[0]}'
    )


def settings(layout, source, converted, num_heads, grid):
    """Config of ADDPViT."""
    from addp_mm.layouts.vit_weights import num_heads_of

    args = layout.build_args(source, grid=grid)
    heads = num_heads or num_heads_of(converted)
    if heads is None:
        raise ValueError(
            'the number of attention heads cannot be inferred from the weights, and '
            f'{args["arch"]["num_layers"]} blocks with {args["arch"]["embed_dims"]} channels are not a standard '
            'architecture: give --num-heads'
        )
    args['arch']['num_heads'] = heads
    return dict(type='addp_mm.ADDPViT', **args)


def agreement(layout, source, config, vit):
    """Run both implementations; return a description of the comparison."""
    import torch

    from addp_mm.conversion.agreement import compared, finite
    from addp_mm.conversion.originals.vit import original_features

    images = torch.rand(2, config['in_channels'], *(side * vit.patch_size for side in vit.grid_size))
    vit.out_type = config['out_type'] if config.get('out_type') == 'avg_featmap' else 'raw'
    features, original = vit(images)[0], original_features(layout, source, config, images)
    if original is None:
        return f"{finite(features=features)}; not compared: mmpretrain's DeiT 3 applies its first norm twice"
    return compared(features=(features, original))


def convert(args):
    """Convert the checkpoint."""
    from addp_mm.conversion.write_converted import check_destination, write_converted

    check_destination(args.dst)
    source, layout = read(args.src, args.prefix)
    grid = grid_of(source, args.img_size)
    converted = layout.convert(source, grid=grid)
    config = settings(layout, source, converted, args.num_heads, grid)
    print(f'{args.src} has the layout of {layout.name}: {len(source)} tensors read')

    def run(vit):
        print(describe_positions(source, vit, args.img_size))
        return agreement(layout, source, config, vit)

    print(write_converted(args.dst, 'backbone', config, converted, run))


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
