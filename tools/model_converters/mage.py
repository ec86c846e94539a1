# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a pre-training checkpoint of MAGE to addp_mm.MaskedTokenPredictor or addp_mm.VQTokenizer.

Sizes are inferred from the shapes. An unknown key is an error. The weights are written if this
package and MAGE's implementation give the same results. A config is written next to DST, with the
same name and the ending .json, for ``_base_`` or ``MODELS.build``: {"predictor": {…}} or
{"tokenizer": {…}}.
"""

from addp_mm.cli_options import number
from addp_mm.conversion.command import converter_parser, read_source
from addp_mm.errors import exit_on_interrupt, exit_on_user_error


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(__doc__, "checkpoint of MAGE's pre-training, e.g. mage-vitb-1600.pth")
    parser.add_argument('--part', choices=('predictor', 'tokenizer'), default='predictor', help='what to convert')
    parser.add_argument(
        '--num-heads',
        type=number(int, 1),
        help='attention heads of the encoder, which cannot be inferred from the weights; '
        'default: 12 at a width of 768, 16 at 1024, as published',
    )
    parser.add_argument(
        '--decoder-num-heads', type=number(int, 1), help='attention heads of the decoder; default: 16 at these widths'
    )
    return parser.parse_args(argv)


def predictor(source, args):
    """Config, weights and check of the predictor."""
    import torch

    from addp_mm.conversion.agreement import compared
    from addp_mm.conversion.originals.mage import predicted_probabilities
    from addp_mm.layouts.mage import MAGE, heads_of

    sizes = MAGE.build_args(source)
    heads = dict(
        num_heads=heads_of(sizes['embed_dims'], args.num_heads, 'num_heads'),
        decoder_num_heads=heads_of(
            sizes['decoder_embed_dims'], args.decoder_num_heads, 'decoder_num_heads', decoder=True
        ),
    )

    def run(model):
        ids = torch.randint(sizes['token_space']['codebook_size'], (1, sizes['num_tokens']))
        mask = torch.rand(ids.shape) < 0.5
        return compared(probabilities=(model(ids, mask), predicted_probabilities(source, ids, mask, **heads)))

    return dict(type='addp_mm.MaskedTokenPredictor', **sizes, **heads), MAGE.convert(source), run


def tokenizer(source):
    """Config, weights and check of the tokenizer."""
    from addp_mm.conversion.originals.vqgan import OriginalVQGAN, tokenizer_agrees
    from addp_mm.layouts.key_rules import without_prefix
    from addp_mm.layouts.vqgan import MASKGIT

    vqgan = without_prefix(source, 'vqgan.')
    config = dict(type='addp_mm.VQTokenizer', **MASKGIT.build_args(vqgan))
    original = OriginalVQGAN(vqgan, taming=False)
    return config, MASKGIT.convert(vqgan), lambda model: tokenizer_agrees(model, original)


def convert(args):
    """Convert the checkpoint."""
    from addp_mm.conversion.write_converted import check_destination, write_converted

    check_destination(args.dst)
    source, _ = read_source(args.src)
    config, converted, run = predictor(source, args) if args.part == 'predictor' else tokenizer(source)
    print(f'{len(source)} tensors read, {len(source) - len(converted)} of other components or unused')
    print(write_converted(args.dst, args.part, config, converted, run))


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
