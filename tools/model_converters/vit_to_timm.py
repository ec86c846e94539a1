# Copyright (c) addp_mm contributors. Apache-2.0.
r"""Convert an ADDPViT to timm: a folder with model.safetensors and config.json.

    python tools/model_converters/vit_to_timm.py work_dirs/…/epoch_100.pth addp-vit \
        --config configs/….py
    timm.create_model('local-dir:addp-vit', pretrained=True)

The Hugging Face Hub has the same files for timm. ADDPViT and timm run the weights, which are
written if both agree. Window attention and relative positions are an error, because timm's
VisionTransformer has none.
"""

import os
from pathlib import Path

from addp_mm.cli_options import number
from addp_mm.conversion.command import converter_parser, read_source
from addp_mm.errors import exit_on_interrupt, exit_on_user_error

TOLERANCE = 1e-4  # relative to the largest feature


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(
        __doc__, 'checkpoint of addp_mm, or of a model with this backbone', 'folder to write; must not exist'
    )
    parser.add_argument(
        '--config',
        help='config with model.backbone (or backbone), as in training; default: the .json next to SRC, which the '
        'converters write',
    )
    parser.add_argument('--prefix', help="prefix of the backbone's names; default: backbone. if a name has it")
    parser.add_argument(
        '--out-type',
        choices=('cls_token', 'avg_featmap', 'featmap'),
        help="output of the model; default: the config's, else cls_token if there is one",
    )
    parser.add_argument(
        '--mean',
        type=number(float),
        nargs='+',
        action='extend',
        help="mean of each channel of images in [0, 1]; default: the config's data_preprocessor, else ImageNet's",
    )
    parser.add_argument(
        '--std',
        type=number(float),
        nargs='+',
        action='extend',
        help='standard deviation of each channel; default: as --mean',
    )
    return parser.parse_args(argv)


def backbone_config(args, config):
    """Config of the ADDPViT, without its weights."""
    from addp_mm.config.type_names import type_name

    found = config.get('backbone') or config.get('model', {}).get('backbone')
    if not found or type_name(found.get('type')) != 'ADDPViT':
        raise ValueError(f'{args.config} has no model.backbone of type addp_mm.ADDPViT')
    return {**found.to_dict(), 'type': 'addp_mm.ADDPViT', 'init_cfg': None}


def normalisation(args, config):
    """Mean and standard deviation of each channel of images in [0, 1]."""
    from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD

    found = config.get('data_preprocessor') or config.get('model', {}).get('data_preprocessor') or {}
    return tuple(
        given or ([value / 255 for value in found[name]] if found.get(name) else default)
        for name, given, default in (('mean', args.mean, IMAGENET_MEAN), ('std', args.std, IMAGENET_STD))
    )


def read(args):
    """Read the backbone's weights."""
    from addp_mm.layouts.key_rules import dotted, without_prefix

    prefix = dotted(args.prefix)
    weights, selected = read_source(args.src, prefix)
    if args.prefix is None and any(key.startswith('backbone.') for key in weights):
        prefix, selected = 'backbone.', without_prefix(weights, 'backbone.')
    if 'patch_embed.projection.weight' not in selected:
        raise ValueError(
            f'{args.src} has no {prefix}patch_embed.projection.weight, so it is not an ADDPViT. Give --prefix if the '
            'backbone has another prefix. Weights of other projects are converted by tools/model_converters/vit.py'
        )
    return selected


def check_options(vit):
    """Refuse options that timm does not have and that cannot be inferred from the weights."""
    if any(block.window_size for block in vit.blocks):
        raise ValueError("the backbone has window attention, and timm's VisionTransformer has none")
    if vit.blocks[0].norm1.eps != 1e-6:
        raise ValueError(f'the backbone has norm_eps={vit.blocks[0].norm1.eps}, and only 1e-6 can be converted')


def difference(vit, weights, kwargs, out_type):
    """Run both implementations; return the largest difference, relative to the largest feature.

    Raises:
        ValueError: The difference is larger than :data:`TOLERANCE`.
    """
    import timm
    import torch

    from addp_mm.checkpoints.comparison import load_exactly
    from addp_mm.conversion.agreement import relative_difference
    from addp_mm.layouts.to_timm import architecture_of

    model = timm.create_model(architecture_of(kwargs), pretrained=False, **kwargs).eval()
    load_exactly(weights, model, 'the converted checkpoint')
    images = torch.rand(2, kwargs['in_chans'], *kwargs['img_size'])
    vit.out_type = 'raw' if out_type == 'featmap' else out_type
    with torch.no_grad():
        result = relative_difference(model(images), vit(images)[-1])
    if not result < TOLERANCE:
        raise ValueError(f'ADDPViT and timm disagree by {result:.1e} of the largest feature')
    return result


def convert(args):
    """Convert the checkpoint."""
    from addp_mm.checkpoints.atomic_write import write_json, write_safetensors
    from addp_mm.checkpoints.comparison import load_exactly
    from addp_mm.config.config_file import load_config
    from addp_mm.conversion.write_converted import config_beside
    from addp_mm.layouts.to_timm import timm_config, to_timm
    from addp_mm.registry import MODELS

    if os.path.exists(args.dst):
        raise FileExistsError(f'{args.dst} exists: choose another name or remove it')
    args.config = args.config or config_beside(args.src)
    if not os.path.isfile(args.config):
        raise FileNotFoundError(f'{args.config} does not exist: give the config of the training as --config')
    config = load_config(args.config)
    backbone, weights = backbone_config(args, config), read(args)
    default = backbone.get('out_type', 'cls_token')
    out_type = args.out_type or ('featmap' if default == 'raw' else default)
    vit = MODELS.build(backbone).eval()
    check_options(vit)
    load_exactly(weights, vit, f'{args.src}, with {args.config},')
    img_size = tuple(side * vit.patch_size for side in vit.grid_size)
    exported, kwargs = to_timm(vit.state_dict(), vit.blocks[0].attn.num_heads, img_size, out_type)
    result = difference(vit, exported, kwargs, out_type)
    folder = Path(args.dst)
    write_safetensors(folder / 'model.safetensors', exported, dict(format='pt'))
    write_json(folder / 'config.json', timm_config(kwargs, *normalisation(args, config)))
    print(
        f'timm differs from ADDPViT by {result:.1e} of the largest feature\n'
        f'wrote {len(exported)} tensors to {folder / "model.safetensors"}, and {folder / "config.json"}\n'
        f"timm.create_model('local-dir:{folder.resolve()}', pretrained=True)"
    )


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
