# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time the optimizer step and the moving average of a config's model, by way of computation.

'plain' updates one parameter after the other. 'foreach' calls each operation once for all
parameters of a group. 'fused' is what a training does: one kernel for all groups of the same
settings. All take turns, with random gradients. Parameter groups are those of the config.
"""

import argparse
import contextlib
import logging

from addp_mm.cli_options import ToolParser, add_cfg_options, add_timing_options

WAYS = {'plain': dict(foreach=False), 'foreach': dict(foreach=True), 'fused': {}}


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='path of the config file, or addp_mm::NAME')
    add_timing_options(parser, rounds=10)
    add_cfg_options(parser)
    return parser.parse_args(argv)


def optimizer_cases(cfg, model, device):
    """A case for each way of the optimizer, with weights and gradients of its own."""
    import copy

    import torch
    from mmengine.optim import build_optim_wrapper

    from addp_mm.benchmark.paired_times import Case

    for name, options in WAYS.items():
        own = copy.deepcopy(model).to(device)
        wrapper_cfg = copy.deepcopy(cfg.optim_wrapper)
        wrapper_cfg.update(type='OptimWrapper', optimizer=dict(wrapper_cfg.optimizer, **options))
        for option in ('dtype', 'loss_scale', 'use_fsdp'):  # of the mixed precision, which a step does not use
            wrapper_cfg.pop(option, None)
        optimizer = build_optim_wrapper(own, wrapper_cfg).optimizer
        for parameter in own.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn_like(parameter) * 1e-3
        yield Case(name, optimizer.step, count=lambda: 0)


def average_cases(model, device):
    """The moving average by mmengine, and as a training computes it."""
    from mmengine.model import ExponentialMovingAverage

    from addp_mm.benchmark.paired_times import Case

    model = model.to(device)
    together = ExponentialMovingAverage.update_parameters
    for name, update in (('plain', together.__wrapped__), ('in one call', together)):
        average = ExponentialMovingAverage(model, device=device)
        average.update_parameters(model)  # the first update copies
        yield Case(name, lambda update=update, average=average: update(average, model), count=lambda: 0)


def main(argv=None):
    """Measure, print the tables, and write them."""
    args = parse_args(argv)
    from addp_mm.analysis.batches import scope_of
    from addp_mm.benchmark.timed_tool import Group, measure_groups, prepare
    from addp_mm.checks.argument_kinds import argument_kinds
    from addp_mm.config.config_file import load_config
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error
    from addp_mm.registry import MODELS

    with exit_on_interrupt('nothing was written'), exit_on_user_error(), contextlib.ExitStack() as stack:
        logging.disable(logging.WARNING)  # mmengine logs each parameter with settings of its own
        stack.callback(logging.disable, logging.NOTSET)
        prepare(args)
        cfg = load_config(args.config, args.cfg_options, argument_kinds)
        with scope_of(cfg):
            model = MODELS.build(cfg.model)
            cases = list(optimizer_cases(cfg, model, args.device))
        groups = (
            Group(title, found)
            for title, found in (
                (f'A step of {cfg.optim_wrapper.optimizer.type}', cases),
                ('A moving average', list(average_cases(model, args.device))),
            )
        )
        measure_groups(f'Optimizer of {args.config}', groups, args, with_memory=False)


if __name__ == '__main__':
    main()
