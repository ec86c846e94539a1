# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write a config with all that it inherits as JSON or YAML.

A config in Python is a program. This file is data: addp train FILE.json reads it without running
anything from it, so that you can pass it on, and use those of others.
"""

from pathlib import Path

from addp_mm.cli_options import ToolParser, add_cfg_options


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file, or the name of a shipped config')
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write: .json, .yaml or .yml')
    add_cfg_options(parser)
    return parser.parse_args(argv)


def dump(args) -> None:
    """Read the config and write the file, after checking that it can be read back."""
    from addp_mm.config.config_file import load_config
    from addp_mm.config.data_config import DATA_SUFFIXES, write_data_config
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import ConfigError

    if Path(args.out).suffix not in DATA_SUFFIXES:
        raise ConfigError(f'--out {args.out} must end in {", ".join(DATA_SUFFIXES)}')
    require_writable(args.out, '--out')
    write_data_config(load_config(args.config, args.cfg_options), args.out)
    print(f'{args.out}: the config {args.config} as data')


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('no file was written'), exit_on_user_error(OSError):
        dump(args)


if __name__ == '__main__':
    main()
