# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure how a training step's time and memory grow with batch, image size and depth.

It measures ADDP pre-training, and a training step of the backbone alone (forward and backward pass,
AdamW), and changes one of the three at a time. The exponent between neighbouring sizes says how a
value grows: 1 is linear, in images, in tokens (the image size squared) or in blocks. What surely
grows faster than linearly is named. Weights and images are random. All patches have 16 px.
"""

import argparse
import contextlib
from pathlib import Path

from addp_mm.cli_options import add_timing_options, number

TASKS = ('addp', 'backbone')
MODELS = ('nano', 'base')
PATCH = 16
AXES = dict(batch='images', size='tokens', depth='blocks')
# sizes of each axis; the others have the first batch and image size, and the depth of the model
BATCHES, IMG_SIZES, DEPTHS = (1, 2, 4, 8), (256, 512, 1024), (6, 12, 24)
LEAST_SHARE = 0.05  # of the largest step; smaller parts are noise


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = dict(nargs='+', action='extend')
    positive = number(int, 1)
    parser.add_argument('--model', choices=MODELS, default='nano', help='ViT-nano or ViT-B, and its ADDP [nano]')
    parser.add_argument('--task', **several, choices=TASKS, help='what to train [both]')
    parser.add_argument('--vary', **several, choices=list(AXES), help='what to change [all]')
    parser.add_argument('--batch-size', **several, type=positive, help=f'batches [{_shown(BATCHES)}]')
    parser.add_argument('--img-size', **several, type=number(int, PATCH), help=f'image sizes [{_shown(IMG_SIZES)}]')
    parser.add_argument('--depth', **several, type=positive, help=f'blocks of the backbone [{_shown(DEPTHS)}]')
    parser.add_argument(
        '--precision', choices=('float32', 'bfloat16', 'float16'), default='float32', help='of the steps [float32]'
    )
    parser.add_argument('--figure', type=Path, metavar='FILE.svg', help='draw the values against the sizes')
    add_timing_options(parser, rounds=3)
    args = parser.parse_args(argv)
    for name, usual in (('batch_size', BATCHES), ('img_size', IMG_SIZES), ('depth', DEPTHS)):
        setattr(args, name, sorted(set(getattr(args, name) or usual)))
    wrong = [size for size in args.img_size if size % PATCH]
    if wrong:
        parser.error(f'--img-size {wrong[0]} must be a multiple of {PATCH}, the patch size')
    return args


def _shown(numbers):
    return ' '.join(map(str, numbers))


def points(args, axis):
    """Size on the axis, batch, image size and depth (None: the model's) of each point."""
    batch, size = args.batch_size[0], args.img_size[0]
    if axis == 'batch':
        return [(one, one, size, None) for one in args.batch_size]
    if axis == 'size':
        return [((one // PATCH) ** 2, batch, one, None) for one in args.img_size]
    return [(one, batch, size, one) for one in args.depth]


def backbone_cfg(args, size, depth):
    """Config of the backbone."""
    from addp_mm.models.backbones.options import ARCHS

    arch = {**ARCHS[args.model], **(dict(num_layers=depth) if depth else {})}
    return dict(arch=arch, img_size=size, patch_size=PATCH, out_type='raw', pre_norm=True)


def addp_step(args, batch, size, depth, spans):
    """A step of ADDP pre-training; see :func:`backbone_step`."""
    from addp_mm.analysis import TrainingStep
    from addp_mm.benchmark.speed_steps import ADDP, NANO_ADDP
    from addp_mm.benchmark.step_parts import spans_of_step
    from addp_mm.config.config_file import load_config
    from addp_mm.engine.runner_cfg import set_amp

    cfg = load_config(NANO_ADDP if args.model == 'nano' else ADDP)
    set_amp(cfg, args.precision)
    model = cfg.model
    model.backbone.update(backbone_cfg(args, size, depth))
    model.neck.num_tokens = model.predictor.num_tokens = (size // PATCH) ** 2
    if args.model == 'nano':
        model.tokenizer.channel_mults = (1, 2, 2)  # one more level: patches of 16 px, not 8
    step = TrainingStep(cfg, batch, (size, size), args.device)
    spans_of_step(step, spans)
    return step, step.model, step.optimizers


def backbone_step(args, batch, size, depth, spans):
    """A training step of the backbone: a function, its model, and its optimizers."""
    import torch

    from addp_mm.benchmark.paired_times import autocast
    from addp_mm.benchmark.step_parts import BACKBONE, BACKWARD, OPTIMIZER
    from addp_mm.models.backbones import ADDPViT

    model = ADDPViT(**backbone_cfg(args, size, depth)).to(args.device).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.rand(batch, 3, size, size).to(args.device)

    def backward(loss):
        loss.backward()

    step = argparse.Namespace(forward=model, backward=backward, update=optimizer.step)
    for name, part in (('forward', BACKBONE), ('backward', BACKWARD), ('update', OPTIMIZER)):
        spans.wrap(step, name, part)

    def run():
        with autocast(args.device, args.precision):
            out = step.forward(images)[-1]
        step.backward(out.float().square().mean())
        step.update()
        optimizer.zero_grad()

    return run, model, [optimizer]


def held_bytes(model, optimizers):
    """Bytes of weights, buffers and states of the optimizers."""
    import torch

    states = [value for one in optimizers for state in one.state.values() for value in state.values()]
    tensors = [*model.parameters(), *model.buffers(), *filter(torch.is_tensor, states)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def measure(args, task, axis, stack):
    """Measure one task along one axis; returns the record of the group, with its growth."""
    from addp_mm.benchmark.attention_span import wrap_attention
    from addp_mm.benchmark.paired_times import Case
    from addp_mm.benchmark.spans import Spans
    from addp_mm.benchmark.timed_tool import Group, measure_groups

    spans = Spans()
    stack.callback(spans.unwrap)
    wrap_attention(spans)
    build = addp_step if task == 'addp' else backbone_step
    cases, models = [], []
    for _, batch, size, depth in points(args, axis):
        step, *trained = build(args, batch, size, depth, spans)
        name = f'{batch} x {size} x {size} px, {depth or "usual"} blocks'
        # operations are not counted: torch counts those of attention with its weights in memory
        cases.append(Case(name, step, args.precision, batch, spans, count=lambda: 0))
        models.append(trained)
    what = 'ADDP pre-training' if task == 'addp' else 'training of the backbone'
    title = f'{what} ({args.model}) against {AXES[axis]}'
    args_of_group = argparse.Namespace(**{**vars(args), 'out': None})
    (group,) = measure_groups(title, [Group(title, cases)], args_of_group)['groups']
    for case, trained in zip(group['cases'], models, strict=True):
        case['held_bytes'] = held_bytes(*trained)
    spans.unwrap()
    return group


def add_growth(args, axis, group):
    """Add the exponents to the record of a group; returns the growths."""
    from addp_mm.benchmark.growth import Growth, exact, growth_table
    from addp_mm.benchmark.quartiles import quartiles

    sizes, cases = [point[0] for point in points(args, axis)], group['cases']
    added = [case['added_bytes'] for case in cases]
    peaks = [None if more is None else more + case['held_bytes'] for more, case in zip(added, cases, strict=True)]
    growths = [
        Growth('time of a step', sizes, [quartiles(case['seconds']) for case in cases]),
        Growth('added memory of a step', sizes, [exact(one) for one in added]),
        Growth('peak memory with weights and states', sizes, [exact(one) for one in peaks]),
    ]
    of_step = growths[0].values[-1][1]
    for name in dict.fromkeys(name for case in cases for parts in case['parts'] for name in parts):
        values = [[parts[name] for parts in case['parts'] if name in parts] for case in cases]
        growth = Growth(f'time: {name}', sizes, [quartiles(one) if one else None for one in values])
        if growth.values[-1] is not None and growth.values[-1][1] >= LEAST_SHARE * of_step:
            growths.append(growth)
    group['growth'] = [growth.record() for growth in growths]
    table = growth_table(growths, AXES[axis])
    group['tables'].append(table)
    return growths


def draw(path, measured):
    """Draw time and memory of all groups.

    Args:
        path: The SVG file.
        measured: Axis and growths by title.
    """
    from addp_mm.checkpoints.atomic_write import write_text
    from addp_mm.report.growth_figures import growth_charts

    charts = {}
    for title, (axis, growths) in measured.items():
        medians = {
            growth.name: [(x, value[1]) for x, value in zip(growth.sizes, growth.values, strict=True) if value]
            for growth in growths
        }
        times = {name.removeprefix('time: '): line for name, line in medians.items() if name.startswith('time')}
        memory = {
            name: [(x, y / 2**20) for x, y in line] for name, line in medians.items() if not name.startswith('time')
        }
        charts[f'{title}: time'] = AXES[axis], 'seconds', times
        charts[f'{title}: memory'] = AXES[axis], 'MiB', memory
    write_text(path, growth_charts(charts).content.decode())


def run(args, stack):
    """Measure everything; returns what grows faster than linearly."""
    from addp_mm.benchmark.growth import faster_than_linear
    from addp_mm.benchmark.times_report import EXPLANATION
    from addp_mm.checkpoints.atomic_write import write_json
    from addp_mm.report.markdown import markdown_table

    records = dict(title='How cost grows', explanation=EXPLANATION, groups=[])
    measured = {}
    for task in args.task or TASKS:
        for axis in args.vary or AXES:
            group = measure(args, task, axis, stack)
            growths = add_growth(args, axis, group)
            table = group['tables'][-1]
            print('\n' + markdown_table(table['header'], table['rows'], numbers=True), flush=True)
            measured[group['title']] = axis, growths
            records['groups'].append(group)
            records['faster_than_linear'] = faster_than_linear({title: some for title, (_, some) in measured.items()})
            if args.out is not None:
                write_json(args.out, records)
    if args.figure is not None:
        draw(args.figure, measured)
    return records['faster_than_linear']


def main(argv=None):
    """Measure, print the tables, write and draw them."""
    args = parse_args(argv)
    import logging

    from mmengine.logging import MMLogger

    import addp_mm.registry  # noqa: F401  # before mmpretrain, whose imports it prepares
    from addp_mm.benchmark.timed_tool import prepare
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('finished groups are in --out'), exit_on_user_error(), contextlib.ExitStack() as stack:
        prepare(args)
        MMLogger.get_current_instance().setLevel(logging.ERROR)  # it has a line for each weight
        if args.figure is not None:
            require_writable(args.figure, '--figure')
        found = run(args, stack)
    print('\nFaster than linear:' if found else '\nNothing grows faster than linearly.')
    print('\n'.join(found))


if __name__ == '__main__':
    main()
