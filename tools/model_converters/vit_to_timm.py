# Copyright (c) addp_mm contributors. Apache-2.0.
"""Export an ADDPViT to timm: a folder with model.safetensors and config.json, usable without OpenMMLab.

    python tools/model_converters/vit_to_timm.py work_dirs/…/epoch_100.pth addp-vit --config
    configs/….py timm.create_model('local-dir:addp-vit', pretrained=True)

The folder is what the Hugging Face hub keeps for timm, too. ADDPViT and timm both run the weights,
and they are written if both agree. What timm's VisionTransformer cannot express is an error:
windows, relative positions. Only the config tells of windows and of the output (class token, or
average before the norm).
"""

import argparse
import json
import os
from pathlib import Path

import torch

TOLERANCE = 1e-4  # of the largest feature


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help='checkpoint of addp_mm, or of a model with the backbone in it')
    parser.add_argument('dst', metavar='DST', help='folder to write; must not exist')
    parser.add_argument(
        '--config',
        help='config with model.backbone (or backbone), as the weights were trained; '
        'default: the standard architecture of their width, without windows',
    )
    parser.add_argument('--prefix', help="what the backbone's weights start with; default: backbone., if any does")
    parser.add_argument('--num-heads', type=int, help='attention heads, if neither a config nor the architecture tells')
    parser.add_argument(
        '--img-size',
        type=int,
        nargs=2,
        metavar=('HEIGHT', 'WIDTH'),
        help='pixels; needed only without a config where the positions form no square map',
    )
    parser.add_argument(
        '--out-type',
        choices=('cls_token', 'avg_featmap', 'featmap'),
        help="what the model gives; default: the config's, else cls_token if there is one",
    )
    parser.add_argument(
        '--mean',
        type=float,
        nargs='+',
        help="of the channels of images in [0, 1]; default: the config's data_preprocessor, else ImageNet's",
    )
    parser.add_argument('--std', type=float, nargs='+', help='the same')
    return parser.parse_args(argv)


def backbone_config(args, weights):
    """Config of ADDPViT."""
    from mmengine.config import Config

    from addp_mm.layouts.vit_weights import num_heads_of, vit_args

    if args.config:
        config = Config.fromfile(args.config)
        found = config.get('backbone') or config.get('model', {}).get('backbone')
        if not found or found.get('type', '').split('.')[-1] != 'ADDPViT':
            raise ValueError(f'{args.config} has no model.backbone of type addp_mm.ADDPViT')
        return {**found.to_dict(), 'type': 'addp_mm.ADDPViT', 'init_cfg': None}
    if 'cls_token' not in weights:
        raise ValueError(
            'weights without a class token may be those of a backbone with windows, of which tensors tell '
            'nothing: give its --config'
        )
    config = vit_args(weights, args.img_size and tuple(args.img_size))
    heads = args.num_heads or num_heads_of(weights)
    if heads is None:
        raise ValueError(
            'tensors do not tell the number of attention heads, and this is no standard architecture: '
            'say --num-heads, or give the --config'
        )
    config['arch'] = dict(config['arch'], num_heads=heads)
    return dict(type='addp_mm.ADDPViT', **config)


def normalisation(args):
    """Mean and standard deviation of the channels of images in [0, 1]."""
    from mmengine.config import Config

    from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD

    config = Config.fromfile(args.config) if args.config else {}
    found = config.get('data_preprocessor') or config.get('model', {}).get('data_preprocessor') or {}
    return tuple(
        given or ([value / 255 for value in found[name]] if found.get(name) else default)
        for name, given, default in (('mean', args.mean, IMAGENET_MEAN), ('std', args.std, IMAGENET_STD))
    )


def read(args):
    """The backbone's weights."""
    from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file
    from addp_mm.layouts.key_rules import dotted, without_prefix

    prefix = args.prefix and dotted(args.prefix)
    weights = find_state_dict(load_checkpoint_file(args.src), args.src, prefix or '')
    if prefix is None:
        prefix = 'backbone.' if any(key.startswith('backbone.') for key in weights) else ''
    weights = without_prefix(weights, prefix)
    if 'patch_embed.projection.weight' not in weights:
        raise ValueError(
            f'{args.src} has no {prefix}patch_embed.projection.weight: no ADDPViT. Weights of others are '
            'converted by tools/model_converters/vit.py; --prefix says where the backbone stands'
        )
    return weights


def refuse(vit):
    """Raises ValueError for what is in no tensor and timm has not."""
    if any(block.window_size for block in vit.blocks):
        raise ValueError("the backbone attends in windows, which timm's VisionTransformer has not")
    if vit.blocks[0].norm1.eps != 1e-6:
        raise ValueError(f'the backbone has norm_eps={vit.blocks[0].norm1.eps}; the export knows 1e-6 alone')


def compare(vit, weights, kwargs, out_type):
    """Run both sides; returns how far they are apart and raises ValueError where that is too far."""
    import timm

    from addp_mm.layouts.to_timm import architecture_of

    model = timm.create_model(architecture_of(kwargs), pretrained=False, **kwargs).eval()
    model.load_state_dict(weights, strict=True)
    images = torch.rand(2, kwargs['in_chans'], *kwargs['img_size'])
    vit.out_type = 'raw' if out_type == 'featmap' else out_type
    with torch.no_grad():
        expected, features = vit(images)[-1], model(images)
    apart = ((features - expected).abs().max() / expected.abs().max()).item()
    if not apart < TOLERANCE:
        raise ValueError(f'ADDPViT and timm disagree by {apart:.1e} of the largest feature')
    return apart


def convert(args):
    from addp_mm.checkpoints.safetensors_file import write_safetensors
    from addp_mm.layouts.to_timm import timm_config, to_timm
    from addp_mm.registry import MODELS

    if os.path.exists(args.dst):
        raise FileExistsError(f'{args.dst} exists already: choose another name or remove it')
    weights = read(args)
    config = backbone_config(args, weights)
    default = config.get('out_type', 'cls_token')
    out_type = args.out_type or ('featmap' if default == 'raw' else default)
    vit = MODELS.build(config).eval()
    refuse(vit)
    try:
        vit.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(f'{args.src} does not fit {args.config or "the sizes read from it"}: {error}') from error
    exported, kwargs = to_timm(
        vit.state_dict(), vit.blocks[0].attn.num_heads, tuple(side * vit.patch_size for side in vit.grid_size), out_type
    )
    apart = compare(vit, exported, kwargs, out_type)
    folder = Path(args.dst)
    folder.mkdir(parents=True)
    write_safetensors(folder / 'model.safetensors', exported, dict(format='pt'))
    described = timm_config(kwargs, *normalisation(args))
    (folder / 'config.json').write_text(json.dumps(described, indent=2) + '\n')
    print(
        f'timm differs from ADDPViT by {apart:.1e} of the largest feature\n'
        f'wrote {len(exported)} tensors to {folder / "model.safetensors"}, and {folder / "config.json"}\n'
        f"timm.create_model('local-dir:{folder.resolve()}', pretrained=True)"
    )


def main(argv=None):
    args = parse_args(argv)
    from addp_mm.errors import reported_in_words

    with reported_in_words(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
