# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a VQGAN, in MaskGIT's layout (as ADDP and MAGE release it) or taming-transformers', to addp_mm.VQTokenizer.

Sizes, biases, attention and strides are read from the tensors. Every key is used or known as
unused; anything else is an error that names it. The weights are run by VQTokenizer and as the
original implementation runs them, from images to codes and back, and written if both agree. Beside
DST goes a config of the same name, ending in .json, for ``_base_`` or ``MODELS.build``:
{"tokenizer": {…}}.
"""

import argparse

import torch

#: Classes of the training tool that old Lightning files name as keys of their callbacks' states.
NAMED_BY_LIGHTNING = ('pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint',)


class NotLoaded:
    """Stands where a file names a class of the training tool: nothing of that class is imported or run."""


def read(src, prefix=''):
    """All weights of a file, or of the mapping in it with which ``prefix`` begins.

    Of :data:`NAMED_BY_LIGHTNING` only the names are taken notice of.
    """
    from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file

    with torch.serialization.safe_globals([(NotLoaded, name) for name in NAMED_BY_LIGHTNING]):
        return find_state_dict(load_checkpoint_file(src), src, prefix)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help='VQGAN (.ckpt, .pth or .safetensors), bare or as state_dict')
    parser.add_argument('dst', metavar='DST', help='file to write (.safetensors or .pth); must not exist')
    parser.add_argument(
        '--prefix',
        default='',
        help='take only keys that start so, e.g. first_stage_model. of a '
        'transformer or a latent diffusion model; may begin with a mapping of the file',
    )
    parser.add_argument(
        '--input-range',
        type=float,
        nargs=2,
        metavar=('BLACK', 'WHITE'),
        help='what the weights take black and white for, which tensors do not tell; default: 0 1 for '
        "MaskGIT's layout, -1 1 for taming's",
    )
    parser.add_argument(
        '--num-groups',
        type=int,
        default=32,
        help='groups of the norms, which tensors do not tell; default: %(default)s, as in all released weights',
    )
    return parser.parse_args()


def convert(args):
    from addp_mm.conversion.originals.vqgan import OriginalVQGAN, tokenizer_agrees
    from addp_mm.conversion.write_converted import check_destination, write_converted
    from addp_mm.layouts import advice_on_prefix
    from addp_mm.layouts.key_rules import dotted, without_prefix
    from addp_mm.layouts.vqgan import MASKGIT, TAMING

    check_destination(args.dst)
    prefix = dotted(args.prefix)
    everything = read(args.src, prefix)
    source = without_prefix(everything, prefix)
    layout = next((layout for layout in (MASKGIT, TAMING) if layout.matches(source)), None)
    if layout is None:
        raise ValueError(
            f"{args.src} holds no VQGAN{f' under {prefix}' if prefix else ''}: neither MaskGIT's nor "
            "taming's keys (encoder.conv_in, quantize.embedding, …). "
            f'{advice_on_prefix(everything, {"VQTokenizer"})}'
        )
    given = dict(num_groups=args.num_groups)
    if args.input_range:
        given['input_range'] = tuple(args.input_range)

    config = dict(type='addp_mm.VQTokenizer', **{**layout.build_args(source), **given})
    converted = layout.convert(source)
    print(f'{layout.name}: {len(source)} tensors read, {len(source) - len(converted)} known as unused')
    original = OriginalVQGAN(source, layout is TAMING, config['input_range'], args.num_groups)
    print(
        write_converted(
            args.dst, 'tokenizer', config, converted, lambda tokenizer: tokenizer_agrees(tokenizer, original)
        )
    )


def main():
    args = parse_args()
    from addp_mm.errors import reported_in_words

    with reported_in_words(ValueError, OSError):
        convert(args)


if __name__ == '__main__':
    main()
