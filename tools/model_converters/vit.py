# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a ViT to addp_mm.ADDPViT: MAE, BEiT (v2), DeiT (III), DINOv2, timm's or mmpretrain's VisionTransformer.

The layout is recognised and sizes are read from the tensors. Every key is used or known as unused
(heads, decoders); anything else is an error that names it. The weights are run by ADDPViT and by
timm's (or mmpretrain's) own implementation, and written if both agree. Beside DST goes a config of
the same name, ending in .json, for ``_base_`` or ``MODELS.build``: {"backbone": {…}}.
"""

import argparse
import re

import torch


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help='checkpoint (.pth or .safetensors), e.g. mae_pretrain_vit_base.pth')
    parser.add_argument('dst', metavar='DST', help='file to write (.safetensors or .pth); must not exist')
    parser.add_argument(
        '--prefix',
        help='take only keys that start so, e.g. model. of Lightning or '
        'teacher.backbone. of DINOv2; may begin with a mapping of the file, e.g. model_ema.',
    )
    parser.add_argument(
        '--num-heads',
        type=int,
        help='attention heads, which tensors do not tell; default: those of '
        'the standard architectures (tiny to huge), or of the relative positions',
    )
    parser.add_argument(
        '--img-size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='pixels; needed only where the positions form no square map, or form one by accident: 196 '
        'are taken for 14 x 14 patches, not for 13 x 15 and a class token',
    )
    return parser.parse_args(argv)


def read(src, prefix):
    """State dict and its layout."""
    from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file
    from addp_mm.errors import first_few
    from addp_mm.layouts import LAYOUTS, advice_on_prefix, find_layout
    from addp_mm.layouts.key_rules import dotted, without_prefix

    prefix = dotted(prefix)
    everything = find_state_dict(load_checkpoint_file(src), src, prefix)
    source = without_prefix(everything, prefix)
    layout = find_layout(source, {'ADDPViT'})
    if layout is None:
        known = ', '.join(layout.name for layout in LAYOUTS if layout.target == 'ADDPViT')
        raise ValueError(
            f'{src} has none of the known layouts of ViTs ({known})'
            f'{f" under {prefix}" if prefix else ""}; it holds {first_few(everything)}. '
            f'{advice_on_prefix(everything, {"ADDPViT"})}'
        )
    return source, layout


def grid_of(source, img_size):
    """(height, width) in patches of images of ``img_size``, or None."""
    if img_size is None:
        return None
    patch_size = next(
        value.shape[-1] for key, value in source.items() if re.search(r'patch_embed\.proj(ection)?\.weight$', key)
    )
    if any(side % patch_size for side in img_size):
        raise ValueError(f'--img-size {img_size[0]} {img_size[1]} does not fit patches of {patch_size} pixels')
    return tuple(side // patch_size for side in img_size)


def reading(source, vit, img_size):
    """How the positions were read, and how else they could be, where tensors leave that open."""
    positions = next((value for key, value in source.items() if re.fullmatch(r'(backbone\.)?pos_embed', key)), None)
    if positions is None:
        return 'no absolute positions'
    rows, (height, width) = positions.shape[1], vit.grid_size
    said = f'{rows} positions, read as {height} x {width} patches'
    if rows > height * width:
        return f'{said} and {rows - height * width} before them'
    if img_size or not vit.with_cls_token:
        return said
    # a square less the class token's is always a map as well
    sides = ((height - 1) * vit.patch_size, (width + 1) * vit.patch_size)
    return (
        f'{said} and none of the class token. If they are a class token and a map that is not square, say so, e.g. '
        f'--img-size {sides[0]} {sides[1]} or {sides[1]} {sides[0]}'
    )


def settings(layout, source, converted, num_heads, grid):
    """Config of ADDPViT."""
    from addp_mm.layouts.vit_weights import num_heads_of

    args = layout.build_args(source, grid=grid)
    heads = num_heads or num_heads_of(converted)
    width, depth = args['arch']['embed_dims'], args['arch']['num_layers']
    if heads is None:
        raise ValueError(
            f'tensors do not tell the number of attention heads, and {depth} blocks of {width} channels '
            'are no standard architecture: say --num-heads'
        )
    args['arch']['num_heads'] = heads
    return dict(type='addp_mm.ADDPViT', **args)


def agreement(layout, source, config, vit):
    """Run both sides and say how far they are apart."""
    from addp_mm.conversion.originals.vit import original_features
    from addp_mm.conversion.write_converted import compared, finite

    images = torch.rand(2, config['in_channels'], *(side * vit.patch_size for side in vit.grid_size))
    vit.out_type = config['out_type'] if config.get('out_type') == 'avg_featmap' else 'raw'
    features, original = vit(images)[0], original_features(layout.name, source, config, images)
    if original is None:
        return f"{finite(features=features)}; not compared: mmpretrain's DeiT 3 applies its first norm twice"
    return compared(features=(features, original))


def convert(args):
    from addp_mm.conversion.write_converted import check_destination, write_converted

    check_destination(args.dst)
    source, layout = read(args.src, args.prefix)
    grid = grid_of(source, args.img_size)
    converted = layout.convert(source, grid=grid)
    config = settings(layout, source, converted, args.num_heads, grid)
    print(f'{args.src} has the layout of {layout.name}: {len(source)} tensors read')

    def run(vit):
        print(reading(source, vit, args.img_size))
        return agreement(layout, source, config, vit)

    print(write_converted(args.dst, 'backbone', config, converted, run))


def main(argv=None):
    args = parse_args(argv)
    from addp_mm.errors import reported_in_words

    with reported_in_words(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
