# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a pre-training checkpoint of MAGE to addp_mm.MaskedTokenPredictor, or its tokenizer to addp_mm.VQTokenizer.

Sizes are read from the tensors. Every key is used or known as unused; anything else is an error
that names it. The weights are run here and as MAGE's implementation runs them, and written if both
agree. Beside DST goes a config of the same name, ending in .json, for ``_base_`` or
``MODELS.build``: {"predictor": {…}} or {"tokenizer": {…}}.
"""

import argparse

import torch


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help="checkpoint of MAGE's pre-training, e.g. mage-vitb-1600.pth")
    parser.add_argument('dst', metavar='DST', help='file to write (.safetensors or .pth); must not exist')
    parser.add_argument('--part', choices=('predictor', 'tokenizer'), default='predictor', help='what to take')
    parser.add_argument(
        '--num-heads',
        type=int,
        help='attention heads of the encoder, which tensors do not tell; '
        'default: 12 at a width of 768, 16 at 1024, as published',
    )
    parser.add_argument('--decoder-num-heads', type=int, help='those of the decoder; default: 16 at these widths')
    return parser.parse_args()


def convert(args):
    from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file
    from addp_mm.conversion.originals.mage import predicted_probabilities
    from addp_mm.conversion.originals.vqgan import OriginalVQGAN, tokenizer_agrees
    from addp_mm.conversion.write_converted import check_destination, compared, write_converted
    from addp_mm.layouts.mage import MAGE, MAGE_TOKENIZER, heads_of

    check_destination(args.dst)
    source = find_state_dict(load_checkpoint_file(args.src), args.src)

    def run_predictor(predictor):
        ids = torch.randint(config['token_space']['codebook_size'], (1, config['num_tokens']))
        mask = torch.rand(ids.shape) < 0.5
        return compared(probabilities=(predictor(ids, mask), predicted_probabilities(source, ids, mask, **heads)))

    def run_tokenizer(tokenizer):
        return tokenizer_agrees(tokenizer, OriginalVQGAN(source, taming=False, prefix='vqgan.'))

    if args.part == 'predictor':
        sizes = MAGE.build_args(source)
        heads = dict(
            num_heads=heads_of(sizes['embed_dims'], args.num_heads, 'num_heads'),
            decoder_num_heads=heads_of(
                sizes['decoder_embed_dims'], args.decoder_num_heads, 'decoder_num_heads', decoder=True
            ),
        )
        config = dict(type='addp_mm.MaskedTokenPredictor', **sizes, **heads)
        converted, run = MAGE.convert(source), run_predictor
    else:
        config = dict(type='addp_mm.VQTokenizer', **MAGE_TOKENIZER.build_args(source))
        converted, run = MAGE_TOKENIZER.convert(source), run_tokenizer
    print(f'{len(source)} tensors read, {len(source) - len(converted)} belong to other parts or are known as unused')
    print(write_converted(args.dst, args.part, config, converted, run))


def main():
    args = parse_args()
    from addp_mm.errors import reported_in_words

    with reported_in_words(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
