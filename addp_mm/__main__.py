# Copyright (c) addp_mm contributors. Apache-2.0.
"""The ``addp`` command; ``python -m addp_mm`` is the same.

Most subcommands run a script of ``tools/``, which can be run without this command, too. A script of
another package, such as mmdet's ``tools/test.py``, is run by ``addp run SCRIPT``: addp_mm's patches
are then active before the script imports anything.
"""

import difflib
import os
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import NoReturn

from addp_mm.config.shipped import tool_path
from addp_mm.errors import exit_on_user_error

# name: (script below tools/, description)
TOOLS = {
    'train': ('train.py', 'train a config: pre-training, classification, detection, segmentation'),
    'test': ('test.py', 'test a checkpoint; writes the metrics as JSON'),
    'check': ('check.py', 'check a config and its data, and write a report of the data'),
    'swap': ('swap.py', 'put another backbone into a config of mmdet, mmseg or mmpretrain'),
    'generate': ('generate.py', 'generate images with a pre-trained ADDP'),
    'inpaint': ('inpaint.py', 'generate a part of an image again: inpainting, outpainting, editing'),
    'app': ('app.py', 'serve a page to try ADDP: generate, inpaint, detect, segment, steps'),
    'evaluate-images': ('evaluate_images.py', 'measure generated images: FID, IS, KID, precision and recall'),
    'label-maps': ('label_maps.py', 'write label maps of images with any classifier, for token labelling'),
    'benchmark': ('benchmark_backbones.py', 'compare backbones: cost, speed and metrics under the same head'),
    'benchmark-speed': ('benchmark_speed.py', 'measure training steps, sampling, backbone, operators and data loading'),
    'replay-batch': ('analysis_tools/replay_batch.py', 'run a failed iteration again: module, sample, precision'),
    'dump-config': ('misc/dump_config.py', 'write a config as JSON or YAML, which run nothing when they are read'),
    'pretrain': ('pretrain_from_folder.py', 'train tokenizer, predictor and ADDP on a folder of images'),
    'align': ('align.py', 'align a generator with a reward: cDPO, DPO, and a comparison of both'),
}
CONVERTERS = {
    'published-addp': ('model_converters/published_addp.py', 'published ADDP checkpoint to addp_mm'),
    'vqgan': ('model_converters/vqgan.py', 'VQGAN of MaskGIT, MAGE or taming-transformers to VQTokenizer'),
    'mage': ('model_converters/mage.py', 'MAGE checkpoint to MaskedTokenPredictor'),
    'vit': ('model_converters/vit.py', 'MAE, BEiT, DeiT, DINOv2, timm or mmpretrain ViT to ADDPViT'),
    'vit-to-timm': ('model_converters/vit_to_timm.py', 'ADDPViT to a folder that timm loads'),
    'volo': ('model_converters/volo.py', 'VOLO classifier between the published code, timm and addp_mm'),
    'export': ('model_converters/export_weights.py', 'training checkpoint to safetensors, without optimizer'),
    'efficientnet-lite': ('model_converters/efficientnet_lite.py', 'EfficientNet-Lite weights for perceptual losses'),
}
OWN = {
    'convert': 'convert a checkpoint; addp convert --help lists the kinds',
    'list': 'list the shipped configs; addp list nano lists those with "nano" in their name',
    'doctor': 'check the environment and run one training step',
    'run': 'run a Python script with the patches of addp_mm active',
}
EPILOG = """
CONFIG is a path, or the name of a shipped config: addp list shows the names.
addp COMMAND --help shows the arguments of a command."""


def _show_help_if_asked(arguments: Sequence[str], usage: str, commands: Mapping[str, str], epilog: str = '') -> None:
    if not arguments or arguments[0] in ('-h', '--help'):
        width = max(map(len, commands), default=0)
        lines = [f'usage: {usage}\n', *(f'  {name:<{width}}  {text}' for name, text in commands.items()), epilog]
        with _until_the_reader_stops():
            print(*lines, sep='\n')
        sys.exit(0 if arguments else 2)


@contextmanager
def _until_the_reader_stops() -> Iterator[None]:
    """End quietly if the output goes to a command that stops reading, such as ``head -1``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at its end
        sys.exit(1)


def _unknown(command: str, name: str, known: Sequence[str]) -> NoReturn:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f'did you mean {", ".join(near)}?' if near else f'choose from {", ".join(known)}'
    sys.stderr.write(f'{command}: error: {name} is unknown; {hint}\n')
    sys.exit(2)


def _run_script(path: str, arguments: Sequence[str]) -> None:
    """Run a script in this process, as ``python PATH ARGUMENTS`` does."""
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    runpy.run_path(path, run_name='__main__')


def _run_tool(name: str, arguments: Sequence[str], command: str) -> None:
    """Call ``main`` of a tool. Its help and errors name the command that the user typed."""
    with exit_on_user_error():
        path = tool_path(name)
    spec = spec_from_file_location(f'addp_mm_tool_{Path(path).stem}', path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    tool = module_from_spec(spec)
    sys.modules[spec.name] = tool  # worker processes find the tool's functions by this name
    sys.argv = [command, *arguments]
    spec.loader.exec_module(tool)
    tool.main(list(arguments))


def _run(arguments: Sequence[str]) -> None:
    _show_help_if_asked(
        arguments, 'addp run SCRIPT ...', {'SCRIPT': 'a file, or a tool of addp_mm such as tools/train.py'}
    )
    script, *rest = arguments
    if os.path.isfile(script):
        _run_script(script, rest)
        return
    with exit_on_user_error():
        path = tool_path(script)
    _run_script(path, rest)


def _convert(arguments: Sequence[str]) -> None:
    kinds = {name: text for name, (_, text) in CONVERTERS.items()}
    _show_help_if_asked(arguments, 'addp convert KIND SRC DST ...', kinds)
    kind, *rest = arguments
    if kind not in CONVERTERS:
        _unknown('addp convert', kind, list(CONVERTERS))
    _run_tool(CONVERTERS[kind][0], rest, f'addp convert {kind}')


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Args:
        argv: Arguments after ``addp``. Defaults to None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    commands = {**{name: text for name, (_, text) in TOOLS.items()}, **OWN}
    _show_help_if_asked(arguments, 'addp COMMAND ...', commands, EPILOG)
    command, *rest = arguments
    if command == '--version':
        from addp_mm.version import __version__

        print(f'addp_mm {__version__}')
    elif command in TOOLS:
        _run_tool(TOOLS[command][0], rest, f'addp {command}')
    elif command == 'convert':
        _convert(rest)
    elif command == 'list':
        from addp_mm.list_configs import main as list_configs

        with _until_the_reader_stops():
            list_configs(rest)
    elif command == 'doctor':
        from addp_mm.doctor import main as doctor

        with _until_the_reader_stops():
            doctor(rest)
    elif command == 'run':
        _run(rest)
    elif command.endswith('.py'):  # python -m addp_mm SCRIPT
        _run(arguments)
    else:
        _unknown('addp', command, [*TOOLS, *OWN])


if __name__ == '__main__':
    main()
