# Copyright (c) addp_mm contributors. Apache-2.0.
"""Train any config of this repository: pre-training, classification, detection or segmentation."""
import argparse
import os


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config file')
    parser.add_argument('--work-dir', help='folder for logs, curves and checkpoints [work_dirs/<config name>]')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='auto|CHECKPOINT',
                        help='go on from a checkpoint, or from the latest one in the work dir')
    parser.add_argument('--amp', nargs='?', const='bfloat16', choices=['bfloat16', 'float16'],
                        help='automatic mixed precision, in bfloat16 unless said otherwise')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate by the true over the base batch size')
    parser.add_argument('--seed', type=int, help='seed of weights, order and augmentation')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE',
                        help='change settings of the config, e.g. train_dataloader.batch_size=8')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main(argv=None):
    args = parse_args(argv)
    from mmengine.config import Config, DictAction
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    import addp_mm  # noqa: F401

    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        options = argparse.ArgumentParser()
        options.add_argument('--cfg-options', nargs='+', action=DictAction)
        cfg.merge_from_dict(options.parse_args(['--cfg-options', *args.cfg_options]).cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or os.path.join(
        'work_dirs', os.path.splitext(os.path.basename(args.config))[0])
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.seed is not None:
        cfg.setdefault('randomness', {})['seed'] = args.seed
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.dtype = args.amp
    if args.auto_scale_lr:
        cfg.auto_scale_lr.enable = True
    Runner.from_cfg(cfg).train()


if __name__ == '__main__':
    main()
