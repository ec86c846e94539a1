# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a published ADDP checkpoint to addp_mm.ADDP, or its encoder alone to addp_mm.ADDPViT.

Sizes are read from the tensors. Every key of SRC is used or known as unused; anything else is an
error that names it. The weights are run here and as the published implementation runs them, and
written if both agree. Beside DST goes a config of the same name, ending in .json, for ``_base_`` or
``MODELS.build``: {"model": {…}} or {"backbone": {…}}. A config takes the backbone from either by
``init_cfg=dict(type='addp_mm.Pretrained', checkpoint=DST)``, from the whole with ``prefix='backbone.'``.
"""

import argparse


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help='published checkpoint, e.g. addp-vit-base-16.pth')
    parser.add_argument('dst', metavar='DST', help='file to write (.safetensors or .pth); must not exist')
    parser.add_argument('--part', choices=('all', 'encoder'), help='what to take; default: all, if it is there')
    heads = parser.add_argument_group(
        'attention heads',
        'Tensors do not tell them. Defaults are the published ones: '
        'encoders have 12 at a width of 768 and 16 at 1024, decoders 16.',
    )
    for name, what in (
        ('', 'encoder'),
        ('decoder-', 'token decoder'),
        ('predictor-', 'encoder of the predictor'),
        ('predictor-decoder-', 'decoder of the predictor'),
    ):
        heads.add_argument(f'--{name}num-heads', type=int, help=what)
    return parser.parse_args()


def whole(source, args):
    """Name, config, weights and proof of everything."""
    from addp_mm.conversion.originals.addp import published_agrees
    from addp_mm.layouts.published import convert_published, published_settings

    converted = convert_published(source)
    config = published_settings(
        converted,
        args.num_heads,
        args.decoder_num_heads,
        args.predictor_num_heads,
        args.predictor_decoder_num_heads,
    )
    return (
        'model',
        dict(type='addp_mm.ADDP', **config),
        converted,
        lambda model: published_agrees(model, source, config),
    )


def encoder(source, args):
    """Name, config, weights and proof of the encoder."""
    from addp_mm.conversion.originals.addp import encoder_agrees
    from addp_mm.layouts.mage import heads_of
    from addp_mm.layouts.published import PUBLISHED_ENCODER

    config = dict(type='addp_mm.ADDPViT', **PUBLISHED_ENCODER.build_args(source))
    config['arch']['num_heads'] = heads_of(config['arch']['embed_dims'], args.num_heads, 'num_heads')
    return (
        'backbone',
        config,
        PUBLISHED_ENCODER.convert(source),
        lambda backbone: encoder_agrees(backbone, source, config['arch']['num_heads']),
    )


def convert(args):
    from addp_mm.apis.load_published import read_published
    from addp_mm.conversion.write_converted import check_destination, write_converted
    from addp_mm.layouts.published import PUBLISHED

    check_destination(args.dst)
    source = read_published(args.src)
    part = args.part or ('all' if PUBLISHED.matches(source) else 'encoder')
    name, config, converted, run = (whole if part == 'all' else encoder)(source, args)
    print(f'{len(source)} tensors read, {len(source) - len(converted)} belong to other parts or are known as unused')
    print(write_converted(args.dst, name, config, converted, run))


def main():
    args = parse_args()
    from addp_mm.errors import reported_in_words

    with reported_in_words(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
