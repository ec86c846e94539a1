# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a VQGAN to addp_mm.VQTokenizer.

SRC has MaskGIT's layout (as released with ADDP and MAGE) or that of taming-transformers. Sizes,
biases, attention and strides are inferred from the shapes. An unknown key is an error. The weights
are written if VQTokenizer and the original implementation give the same results. A config is
written next to DST, with the same name and the ending .json, for ``_base_`` or ``MODELS.build``:
{"tokenizer": {…}}.
"""

from addp_mm.cli_options import number
from addp_mm.conversion.command import converter_parser, read_source
from addp_mm.errors import exit_on_interrupt, exit_on_user_error

#: Classes in old Lightning files: keys of the states of callbacks.
LIGHTNING_CLASSES = ('pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint',)


class NotLoaded:
    """Replaces :data:`LIGHTNING_CLASSES` while a file is read."""


def read(src, prefix=''):
    """Read the weights of a file that may contain :data:`LIGHTNING_CLASSES`.

    Args:
        src: Checkpoint.
        prefix: Prefix of the wanted names, with its dot. Defaults to ''.

    Returns:
        All weights, and those that start with ``prefix``, without it.
    """
    import torch

    with torch.serialization.safe_globals([(NotLoaded, name) for name in LIGHTNING_CLASSES]):
        return read_source(src, prefix)


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(__doc__, 'VQGAN (.ckpt, .pth or .safetensors), bare or under state_dict')
    parser.add_argument(
        '--prefix',
        default='',
        help='use only keys with this prefix, e.g. first_stage_model. of a transformer or a latent diffusion '
        'model; it may start with the name of a dict in the file',
    )
    parser.add_argument(
        '--input-range',
        type=number(float),
        nargs=2,
        metavar=('BLACK', 'WHITE'),
        help="values of black and white, which cannot be inferred from the weights; default: 0 1 for MaskGIT's layout, "
        "-1 1 for taming's",
    )
    parser.add_argument(
        '--num-groups',
        type=number(int, 1),
        default=32,
        help='groups of the norms, which cannot be inferred from the weights; default: %(default)s, as in all released '
        'weights',
    )
    return parser.parse_args(argv)


def convert(args):
    """Convert the checkpoint."""
    from addp_mm.conversion.originals.vqgan import OriginalVQGAN, tokenizer_agrees
    from addp_mm.conversion.write_converted import check_destination, write_converted
    from addp_mm.layouts import advice_on_prefix
    from addp_mm.layouts.key_rules import dotted
    from addp_mm.layouts.vqgan import MASKGIT, TAMING

    check_destination(args.dst)
    prefix = dotted(args.prefix)
    weights, source = read(args.src, prefix)
    layout = next((layout for layout in (MASKGIT, TAMING) if layout.matches(source)), None)
    if layout is None:
        raise ValueError(
            f'{args.src} has no VQGAN{f" under {prefix}" if prefix else ""}: the keys are neither those of MaskGIT '
            f'nor of taming (encoder.conv_in, quantize.embedding, …). {advice_on_prefix(weights, {"tokenizer"})}'
        )
    given = dict(num_groups=args.num_groups)
    if args.input_range:
        given['input_range'] = tuple(args.input_range)
    config = dict(type='addp_mm.VQTokenizer', **{**layout.build_args(source), **given})
    converted = layout.convert(source)
    print(f'{layout.name}: {len(source)} tensors read, {len(source) - len(converted)} unused')
    original = OriginalVQGAN(source, layout is TAMING, config['input_range'], args.num_groups)
    print(write_converted(args.dst, 'tokenizer', config, converted, lambda model: tokenizer_agrees(model, original)))


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
