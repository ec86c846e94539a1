# Copyright (c) addp_mm contributors. Apache-2.0.
"""Export part of a training checkpoint as safetensors, for sharing: no optimizer, no pickle."""

import argparse
import hashlib
import json
from pathlib import Path


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint written by tools/train.py')
    parser.add_argument('dst', help='file to write, ending in .safetensors')
    parser.add_argument('--prefix', default='', help='keep only keys that start so, and cut it off, e.g. tokenizer.')
    parser.add_argument('--drop', nargs='*', default=[], metavar='PREFIX', help='leave out keys that start so')
    parser.add_argument('--half', action='store_true', help='store floating-point tensors as float16')
    parser.add_argument('--meta', nargs='*', default=[], metavar='KEY=VALUE', help='facts to store in the file')
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    return parser.parse_args(argv)


def select(state_dict, prefix='', drop=(), half=False):
    """Tensors to export, by name.

    Args:
        state_dict (dict[str, Tensor]): All weights.
        prefix (str): Keep keys that start so, without it.
        drop (Sequence[str]): Leave out keys that start so.
        half (bool): Whether floating-point tensors become float16.

    Returns:
        dict[str, Tensor]: Contiguous tensors, no two of which share memory.

    Raises:
        ValueError: If nothing is left, or a prefix to drop matches nothing.
    """
    for start in drop:
        if not any(key.startswith(start) for key in state_dict):
            raise ValueError(f'--drop {start!r} matches no key')
    kept = {
        key[len(prefix) :]: value.half() if half and value.is_floating_point() else value
        for key, value in state_dict.items()
        if key.startswith(prefix) and not key.startswith(tuple(drop))
    }
    if not kept:
        starts = sorted({key.split('.')[0] for key in state_dict})
        raise ValueError(f'no key starts with {prefix!r}; the checkpoint has {starts}')
    return unshared({key: value.contiguous() for key, value in kept.items()})


def unshared(tensors):
    """Copies of tensors that share memory with an earlier one, as tied weights do: safetensors takes no such ones."""
    seen, result = set(), {}
    for key, value in tensors.items():
        storage = value.untyped_storage().data_ptr()
        result[key] = value.clone() if storage in seen else value
        seen.add(storage)
    return result


def facts(pairs):
    """Metadata of the file, from ``KEY=VALUE``; None where there is none.

    Raises:
        ValueError: If one has no ``=``.
    """
    wrong = [pair for pair in pairs if '=' not in pair]
    if wrong:
        raise ValueError(f'--meta wants KEY=VALUE, got {wrong[0]!r}')
    return dict(pair.split('=', 1) for pair in pairs) or None


def export(args):
    from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file
    from addp_mm.checkpoints.safetensors_file import write_safetensors
    from addp_mm.conversion.write_converted import check_destination

    dst, meta = Path(args.dst), facts(args.meta)
    if not (args.overwrite and dst.is_file() and dst.suffix == '.safetensors'):
        check_destination(args.dst, ('.safetensors',), has_config=False)
    state_dict = find_state_dict(load_checkpoint_file(args.src), args.src, args.prefix)
    tensors = select(state_dict, args.prefix, args.drop, args.half)
    dst.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(dst, tensors, meta)
    print(
        json.dumps(
            dict(
                file=str(dst),
                tensors=len(tensors),
                parameters=sum(t.numel() for t in tensors.values()),
                bytes=dst.stat().st_size,
                sha256=hashlib.sha256(dst.read_bytes()).hexdigest(),
            )
        )
    )


def main(argv=None):
    args = parse_args(argv)
    from addp_mm.errors import reported_in_words

    with reported_in_words(ValueError, OSError):
        export(args)


if __name__ == '__main__':
    main()
