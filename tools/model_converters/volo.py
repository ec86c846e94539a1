# Copyright (c) addp_mm contributors. Apache-2.0.
r"""Convert VOLO classifiers between the published code, timm and addp_mm.

    addp convert volo d1_224_84.2.pth.tar volo-d1.safetensors
    addp convert volo work_dirs/…/epoch_300.pth volo-d1.pth.tar --to official
    addp convert volo work_dirs/…/epoch_300.pth volo-d1 --to timm

SRC is a published .pth.tar, weights of timm, or a checkpoint of mmpretrain's ImageClassifier with
addp_mm.VOLO and addp_mm.VOLOHead; the layout is recognised. The weights are written if timm and
addp_mm give the same logits.

--to addp_mm writes the weights and, with the ending .json, a config for ``_base_`` or
``MODELS.build``: {"model": {…}}. --to official writes a file that the published code and timm
read. --to timm writes a folder for ``timm.create_model('local-dir:DST', pretrained=True)``.
"""

import os
from pathlib import Path

from addp_mm.cli_options import number
from addp_mm.conversion.command import converter_parser, read_source
from addp_mm.errors import exit_on_interrupt, exit_on_user_error

OFFICIAL_ENDINGS = ('.pth.tar', '.pth')


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(
        __doc__,
        'checkpoint of a VOLO classifier',
        'file to write (.safetensors or .pth; official: .pth.tar), or folder (timm); must not exist',
    )
    parser.add_argument(
        '--to', choices=('addp_mm', 'official', 'timm'), default='addp_mm', help='what to write; default: %(default)s'
    )
    parser.add_argument(
        '--prefix',
        help='use only keys with this prefix; it may be the name of a dict in the file, e.g. state_dict_ema.',
    )
    parser.add_argument(
        '--num-heads',
        type=number(int, 1),
        help='attention heads of the transformers, which cannot be inferred from the weights; default: those of d1 to '
        'd5',
    )
    return parser.parse_args(argv)


def read(args):
    """Read the weights, in the published layout.

    Raises:
        ValueError: SRC is no VOLO classifier, or there is nothing to convert.
    """
    from addp_mm.layouts import find_prefixes
    from addp_mm.layouts.key_rules import dotted, require
    from addp_mm.layouts.volo import VOLO, to_published

    _, source = read_source(args.src, dotted(args.prefix))
    if VOLO.matches(source):
        VOLO.convert(source)  # refuses unknown keys
        weights = dict(source)
    elif 'backbone.timm_model.patch_embed.conv.0.weight' in source:
        if args.to == 'addp_mm':
            raise ValueError(f'{args.src} has the names of addp_mm already: give --to official or --to timm')
        weights = to_published(source)
    else:
        prefixes = [prefix for prefix, layout in find_prefixes(source).items() if layout is VOLO]
        hint = f': give --prefix {prefixes[0]}' if prefixes else ''
        raise ValueError(f'{args.src} is neither a published VOLO nor a classifier with addp_mm.VOLO{hint}')
    require(weights, ('cls_token', 'norm.weight', 'head.weight', 'aux_head.weight'), 'a whole VOLO classifier')
    return weights


def settings(args, weights):
    """Arguments of addp_mm.VOLO.

    Raises:
        ValueError: The architecture is not a published one and --num-heads is missing.
    """
    from addp_mm.layouts.volo import volo_args

    found = volo_args(weights)
    if isinstance(found['arch'], dict):
        if args.num_heads is None:
            raise ValueError(
                f'{args.src} is none of d1 to d5 (blocks {found["arch"]["layers"]}, channels '
                f'{found["arch"]["embed_dims"]}): give --num-heads, the attention heads of its transformers'
            )
        found['arch']['num_heads'] = (found['arch']['num_heads'][0], args.num_heads)
    return found


def classifier_config(found, num_classes, channels):
    """Config of the classifier."""
    from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD

    config = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='addp_mm.VOLO', out_type='raw', **found),
        head=dict(type='addp_mm.VOLOHead', num_classes=num_classes, in_channels=channels),
    )
    if found['in_channels'] == 3:
        statistics = {
            name: [255 * one for one in values] for name, values in (('mean', IMAGENET_MEAN), ('std', IMAGENET_STD))
        }
        config['data_preprocessor'] = dict(type='mmpretrain.ClsDataPreprocessor', to_rgb=True, **statistics)
    return config


def check_destination(args, found):
    """Check that DST can be written, before anything is run."""
    from addp_mm.conversion import write_converted

    if args.to == 'timm':
        if os.path.exists(args.dst):
            raise FileExistsError(f'{args.dst} exists: choose another name or remove it')
        if isinstance(found['arch'], dict):
            raise ValueError('timm loads d1 to d5 only, and the weights have another architecture: give --to official')
    elif args.to == 'official':
        write_converted.check_destination(args.dst, OFFICIAL_ENDINGS, has_config=False)
    else:
        write_converted.check_destination(args.dst)


def write_published(args, weights, found, config, original):
    """Check the weights against addp_mm, and write them for the published code or timm."""
    from addp_mm.checkpoints.atomic_write import write_json, write_safetensors
    from addp_mm.checkpoints.comparison import load_exactly
    from addp_mm.checkpoints.saving import write_checkpoint
    from addp_mm.conversion.originals.volo import timm_config, volo_agrees
    from addp_mm.layouts.volo import VOLO
    from addp_mm.registry import MODELS

    classifier = MODELS.build(config).eval()
    load_exactly(VOLO.convert(weights), classifier, args.src)
    print(f'forward pass: {volo_agrees(classifier, original, found)}')
    if args.to == 'official':
        write_checkpoint(weights, args.dst)
        print(f'wrote {len(weights)} tensors to {args.dst}')
        return
    folder = Path(args.dst)
    write_safetensors(folder / 'model.safetensors', weights, dict(format='pt'))
    write_json(folder / 'config.json', timm_config(found, len(weights['head.weight'])))
    print(f"timm.create_model('local-dir:{folder.resolve()}', pretrained=True)")


def convert(args):
    """Convert the checkpoint."""
    from addp_mm.conversion.originals.volo import timm_volo, volo_agrees
    from addp_mm.conversion.write_converted import write_converted
    from addp_mm.layouts.volo import VOLO

    weights = read(args)
    found = settings(args, weights)
    check_destination(args, found)
    config = classifier_config(found, *weights['head.weight'].shape)
    original = timm_volo(weights, found)
    if args.to == 'addp_mm':

        def run(model):
            return volo_agrees(model, original, found)

        print(write_converted(args.dst, 'model', config, VOLO.convert(weights), run))
    else:
        write_published(args, weights, found, config, original)


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
