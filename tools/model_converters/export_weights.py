# Copyright (c) addp_mm contributors. Apache-2.0.
"""Export weights of a training checkpoint as safetensors, for sharing: no optimizer, no pickle.

LoRA adapters are merged in the weights of their layers. A whole model keeps the names and colours
of its classes.
"""

import json
from pathlib import Path

from addp_mm.conversion.command import converter_parser
from addp_mm.errors import exit_on_interrupt, exit_on_user_error, first_few


def parse_args(argv=None):
    """Parse the command line."""
    parser = converter_parser(__doc__, 'checkpoint written by tools/train.py', 'file to write (.safetensors)')
    parser.add_argument('--prefix', default='', help='keep only keys with this prefix, and remove it, e.g. tokenizer.')
    parser.add_argument(
        '--drop', nargs='*', action='extend', default=[], metavar='PREFIX', help='drop keys with these prefixes'
    )
    parser.add_argument('--half', action='store_true', help='store floating-point tensors as float16')
    parser.add_argument(
        '--meta', nargs='*', action='extend', default=[], metavar='KEY=VALUE', help='text to store in the file'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
    return parser.parse_args(argv)


def select(state_dict, prefix='', drop=(), half=False):
    """Select the tensors to export.

    Args:
        state_dict: All weights by name.
        prefix: Keep only keys with this prefix, and remove it. Defaults to ''.
        drop: Drop keys with one of these prefixes. Defaults to ().
        half: Whether to convert floating-point tensors to float16. Defaults to False.

    Returns:
        Contiguous tensors by name, no two of which share memory.

    Raises:
        ValueError: Nothing is left, or no key starts with one of ``drop``.
    """
    import torch

    for start in drop:
        if not any(key.startswith(start) for key in state_dict):
            raise ValueError(f'--drop {start!r} matches no key')
    kept = {
        key[len(prefix) :]: value.half() if half and value.is_floating_point() else value
        for key, value in state_dict.items()
        if key.startswith(prefix) and not key.startswith(tuple(drop))
    }
    if not kept:
        prefixes = sorted({key.split('.')[0] + '.' for key in state_dict})
        raise ValueError(f'--prefix {prefix!r} matches no key. The checkpoint has the prefixes {first_few(prefixes)}')
    # Copied: safetensors refuses tensors that share memory.
    return {key: value.clone(memory_format=torch.contiguous_format) for key, value in kept.items()}


def metadata(pairs):
    """Metadata of the file from ``KEY=VALUE``.

    Raises:
        ValueError: A pair has no ``=``.
    """
    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise ValueError(f'--meta must be KEY=VALUE, got {wrong[0]!r}')
    return dict(pair.split('=', 1) for pair in pairs)


def export(args):
    """Export the weights."""
    from addp_mm.checkpoints.atomic_write import write_safetensors
    from addp_mm.checkpoints.dataset_meta import classes_as_text
    from addp_mm.checkpoints.file_fingerprint import file_fingerprint
    from addp_mm.checkpoints.reading import load_checkpoint_file
    from addp_mm.checkpoints.state_dict import find_state_dict
    from addp_mm.conversion.write_converted import check_destination
    from addp_mm.models.layers.lora_weights import merge_adapters

    dst, meta = Path(args.dst), metadata(args.meta)
    if not (args.overwrite and dst.is_file() and dst.suffix == '.safetensors'):
        check_destination(args.dst, ('.safetensors',), has_config=False)
    checkpoint = load_checkpoint_file(args.src)
    state_dict = find_state_dict(checkpoint, args.src, args.prefix)
    tensors = select(merge_adapters(state_dict), args.prefix, args.drop, args.half)
    if not args.prefix:
        meta = {**classes_as_text(checkpoint), **meta}
    write_safetensors(dst, tensors, meta)
    print(
        json.dumps(
            dict(
                file=str(dst),
                tensors=len(tensors),
                parameters=sum(tensor.numel() for tensor in tensors.values()),
                bytes=dst.stat().st_size,
                sha256=file_fingerprint(dst),
            )
        )
    )


def main(argv=None):
    """Run the command."""
    args = parse_args(argv)
    with exit_on_interrupt('the conversion is not complete'), exit_on_user_error(ValueError, OSError):
        export(args)


if __name__ == '__main__':
    main()
