# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a published ADDP checkpoint to addp_mm.ADDP, or its encoder to addp_mm.ADDPViT.

Sizes are inferred from the shapes. An unknown key is an error. The weights are written if this
package and the published implementation give the same results. A config is written next to DST,
with the same name and the ending .json, for ``_base_`` or ``MODELS.build``: {"model": {…}} or
{"backbone": {…}}. To load the backbone from DST in a config, write
``init_cfg=dict(type='addp_mm.Pretrained', checkpoint=DST)``; for a whole model add
``prefix='backbone.'``.
"""

from addp_mm.cli_options import number
from addp_mm.conversion.command import converter_parser, read_source
from addp_mm.errors import exit_on_interrupt, exit_on_user_error


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(__doc__, 'published checkpoint, e.g. addp-vit-base-16.pth')
    parser.add_argument(
        '--part', choices=('all', 'encoder'), help='what to convert; default: the whole model if SRC has it'
    )
    heads = parser.add_argument_group(
        'attention heads',
        'They cannot be inferred from the weights. Defaults are the published ones: '
        'encoders have 12 at a width of 768 and 16 at 1024, decoders 16.',
    )
    for name, what in (
        ('', 'encoder'),
        ('decoder-', 'token decoder'),
        ('predictor-', 'encoder of the predictor'),
        ('predictor-decoder-', 'decoder of the predictor; default: as the token decoder'),
    ):
        heads.add_argument(f'--{name}num-heads', type=number(int, 1), help=what)
    return parser.parse_args(argv)


def whole(source, args):
    """Name, config, weights and check of the whole model."""
    from addp_mm.conversion.originals.addp import published_agrees
    from addp_mm.layouts.published import convert_published, published_settings

    converted = convert_published(source)
    config = published_settings(
        converted, args.num_heads, args.decoder_num_heads, args.predictor_num_heads, args.predictor_decoder_num_heads
    )
    return (
        'model',
        dict(type='addp_mm.ADDP', **config),
        converted,
        lambda model: published_agrees(model, source, config),
    )


def encoder(source, args):
    """Name, config, weights and check of the encoder."""
    from addp_mm.conversion.originals.addp import encoder_agrees
    from addp_mm.layouts.mage import heads_of
    from addp_mm.layouts.published import PUBLISHED_ENCODER

    config = dict(type='addp_mm.ADDPViT', **PUBLISHED_ENCODER.build_args(source))
    num_heads = heads_of(config['arch']['embed_dims'], args.num_heads, 'num_heads')
    config['arch']['num_heads'] = num_heads
    return (
        'backbone',
        config,
        PUBLISHED_ENCODER.convert(source),
        lambda backbone: encoder_agrees(backbone, source, num_heads),
    )


def convert(args):
    """Convert the checkpoint."""
    from addp_mm.conversion.write_converted import check_destination, write_converted
    from addp_mm.layouts.published import PUBLISHED

    check_destination(args.dst)
    source, _ = read_source(args.src)
    part = args.part or ('all' if PUBLISHED.matches(source) else 'encoder')
    name, config, converted, run = (whole if part == 'all' else encoder)(source, args)
    print(f'{len(source)} tensors read, {len(source) - len(converted)} of other components or unused')
    print(write_converted(args.dst, name, config, converted, run))


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
