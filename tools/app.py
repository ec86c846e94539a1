# Copyright (c) addp_mm contributors. Apache-2.0.
"""Serve a page to try ADDP: generate, inpaint, detect, segment, and watch the steps.

Models that you do not give are the nano ones of the package; Generate then has their garments by
class, and Inpaint and Steps their scenes. It listens at this computer only, unless --host says
otherwise, and needs no network. Ctrl-C stops it.
"""

import os
import socket
import threading
from importlib.util import find_spec

from addp_mm.app.own_origin import is_loopback
from addp_mm.cli_options import ToolParser, add_device_option, number

NANO = ('addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px', 'addp_mm://addp_nano-p8.safetensors')
NANO_WITH_CLASSES = (
    'addp_vit-nano-p8_class-cond_2xb16-fp32-4k_fashion-scenes-64px',
    'addp_mm://addp_nano-p8_class-cond.safetensors',
)
NANO_DENSE = dict(
    det=(
        'mask-rcnn_addp-vit-nano-p8_fpn_1xb16-fp32-12k_fashion-scenes-64px',
        'addp_mm://mask-rcnn_addp-vit-nano-p8.safetensors',
    ),
    seg=(
        'upernet_addp-vit-nano-p8_1xb16-bf16-18k_fashion-scenes-64px',
        'addp_mm://upernet_addp-vit-nano-p8.safetensors',
    ),
)
DENSE_PACKAGES = dict(det='mmdet', seg='mmseg')
LOOPBACK = '127.0.0.1'


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__)
    parser.add_argument(
        'config', nargs='?', help='config of the pre-training: a file, or the name of a shipped config [nano]'
    )
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint: a path or addp_mm://NAME [nano]')
    for kind, what in (('det', 'detector'), ('seg', 'segmentor')):
        parser.add_argument(f'--{kind}-config', metavar='CONFIG', help=f'config of a {what} [nano]')
        parser.add_argument(f'--{kind}-checkpoint', metavar='CHECKPOINT', help=f'checkpoint of the {what} [nano]')
    parser.add_argument(
        '--host', default=LOOPBACK, help=f'address to listen at; 0.0.0.0 shows the page to the network [{LOOPBACK}]'
    )
    parser.add_argument('--port', type=number(int, 1, 65535), default=7860, help='port to listen at [7860]')
    parser.add_argument(
        '--max-upload-mb', type=number(int, 1), default=10, metavar='MB', help='largest file of an upload [10]'
    )
    parser.add_argument(
        '--max-queue', type=number(int, 1), default=16, help='requests that wait at most; others get a message [16]'
    )
    add_device_option(parser)
    args = parser.parse_args(argv)
    if args.config and not args.checkpoint:
        parser.error('CONFIG needs its CHECKPOINT after it')
    for kind in ('det', 'seg'):
        config, checkpoint = getattr(args, f'{kind}_config'), getattr(args, f'{kind}_checkpoint')
        if (config is None) != (checkpoint is None):
            missing = 'config' if config is None else 'checkpoint'
            given = 'checkpoint' if config is None else 'config'
            parser.error(f'--{kind}-{given} needs --{kind}-{missing}, too')
    return args


def require_gradio() -> None:
    """Refuse to start without Gradio; keep it from sending statistics."""
    from addp_mm.errors import UserError

    if find_spec('gradio') is None:
        raise UserError("the page needs Gradio, which is not installed: pip install 'addp_mm[app]'")
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'
    os.environ['HF_HUB_DISABLE_TELEMETRY'] = '1'


def load_models(args):
    """Load the models of the options."""
    from addp_mm.app.page import PageModels
    from addp_mm.engine.device import choose_device

    device = choose_device(args.device)
    dense = (load_dense(args, kind, device) for kind in ('det', 'seg'))
    if args.config:
        return PageModels(load_generator(args.config, args.checkpoint, device), *dense)
    return PageModels(load_generator(*NANO, device), *dense, load_generator(*NANO_WITH_CLASSES, device))


def load_generator(config: str, checkpoint: str, device):
    """ADDP of a pre-training."""
    from addp_mm.apis import load_model
    from addp_mm.app.image_generator import ImageGenerator
    from addp_mm.label_maps.config_classifier import class_names

    model = load_model(config, checkpoint, device)
    return ImageGenerator(model, tuple(class_names(config)), preview_schedule(config))


def preview_schedule(config: str):
    """The schedule of the previews in a config, which suits its model; else the published one."""
    from addp_mm.config.config_file import load_config
    from addp_mm.config.type_names import type_name
    from addp_mm.generation import SamplingSchedule

    hooks = load_config(config).get('custom_hooks') or []
    found = [hook.get('sampler') for hook in hooks if type_name(hook.get('type')) == 'GenerativePretrainHook']
    return SamplingSchedule.of((found[0] if found else None) or {})


def load_dense(args, kind, device):
    """The detector or the segmentor of the options, else the nano one; None without its package."""
    from addp_mm.app.dense_predictor import load_predictor

    config, checkpoint = getattr(args, f'{kind}_config'), getattr(args, f'{kind}_checkpoint')
    if config is None:
        if find_spec(DENSE_PACKAGES[kind]) is None:
            return None
        config, checkpoint = NANO_DENSE[kind]
    return load_predictor(config, checkpoint, kind, device)


def check_address(host: str, port: int) -> None:
    """Check that the page can listen at an address, before the models are loaded.

    Raises:
        ConfigError: The port is used already, or this computer does not have the address.
    """
    from addp_mm.errors import ConfigError

    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f'--host {host} --port {port}: the page cannot listen there ({error.strerror}); choose another --port, or '
            f'--host {LOOPBACK}'
        ) from error


def run(args) -> None:
    """Load the models and serve the page until Ctrl-C."""
    require_gradio()
    check_address(args.host, args.port)
    from addp_mm.app.page import served

    models = load_models(args)
    with served(models, args.host, args.port, args.max_upload_mb, args.max_queue):
        if not is_loopback(args.host):
            print(
                f'warning: --host {args.host} shows the page to other computers. It has no password and no '
                'encryption: everyone who reaches it can use it',
                flush=True,
            )
        print(f'the page is at http://{args.host}:{args.port} (Ctrl-C stops it)', flush=True)
        threading.Event().wait()


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('the page is closed'), exit_on_user_error(OSError):
        run(args)


if __name__ == '__main__':
    main()
