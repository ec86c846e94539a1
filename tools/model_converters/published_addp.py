# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert a published ADDP checkpoint into the layout of addp_mm.

Every key of SRC is used or known as unused; anything else is an error that lists the keys. DST holds the whole
algorithm, in float32, as safetensors or, by its ending, as a ``.pth`` file. A fine-tuning config takes the backbone
from it by ``init_cfg=dict(type='addp_mm.Pretrained', checkpoint=DST, prefix='backbone.')``.
"""
import argparse
import os
import sys

import torch
from safetensors.torch import save_file

from addp_mm.apis.load_published import read_published
from addp_mm.compat.checkpoints import CheckpointError
from addp_mm.layouts.published import convert_published


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help='published checkpoint (.pth or .safetensors)')
    parser.add_argument('dst', metavar='DST', help='file to write (.safetensors or .pth); must not exist')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if os.path.exists(args.dst):
        sys.exit(f'{args.dst} exists already: choose another name or remove it')
    if not args.dst.endswith(('.safetensors', '.pth')):
        sys.exit(f'{args.dst} must end in .safetensors or .pth')
    try:
        source = read_published(args.src)
        converted = convert_published(source)
    except (ValueError, OSError, CheckpointError) as error:
        sys.exit(f'cannot convert {args.src}: {error}')
    partial = args.dst + '.partial'
    if args.dst.endswith('.safetensors'):
        save_file(converted, partial)
    else:
        torch.save(dict(state_dict=converted), partial)
    os.replace(partial, args.dst)
    print(f'{len(source)} tensors read, {len(converted)} written to {args.dst}')


if __name__ == '__main__':
    main()
