# Copyright (c) addp_mm contributors. Apache-2.0.
"""Train a config: pre-training, classification, detection or segmentation."""

from addp_mm.cli_options import ToolParser, add_runner_options, parse_runner_args, read_runner_config


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file, or the name of a shipped config')
    parser.add_argument('--work-dir', help='folder for logs, curves and checkpoints [work_dirs/<config name>]')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|CHECKPOINT',
        help='continue from this checkpoint; without a value, from the latest one in the work dir',
    )
    parser.add_argument(
        '--override-schedule',
        action='store_true',
        help='with --resume: continue with the learning rate, the other optimizer settings and the schedules of the '
        "config, not with the checkpoint's",
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='bfloat16',
        choices=['bfloat16', 'float16'],
        help='automatic mixed precision; without a value, in bfloat16',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='multiply the learning rate by the batch size over all GPUs, divided by auto_scale_lr.base_batch_size',
    )
    add_runner_options(parser)
    return parse_runner_args(parser, argv)


def prepare(args):
    """Read, check and complete the config, before a model is built. Writes repaired annotations."""
    from addp_mm.checks.check_list import data_checks, run_checks, training_checks
    from addp_mm.engine import runner_cfg
    from addp_mm.engine.added_hooks import add_training_hooks
    from addp_mm.engine.restarts import resume_of_restart
    from addp_mm.engine.strategy_cfg import set_strategy
    from addp_mm.errors import ConfigError

    cfg = read_runner_config(args, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    run_checks(training_checks(cfg))
    if args.override_schedule and not (args.resume or cfg.get('resume')):
        raise ConfigError('--override-schedule changes a resumed training: add --resume')
    runner_cfg.set_resume(cfg, resume_of_restart(cfg, args.resume))
    runner_cfg.set_amp(cfg, args.amp)
    runner_cfg.set_auto_scale_lr(cfg, args.auto_scale_lr)
    runner_cfg.set_log_counting(cfg)
    runner_cfg.set_timeout(cfg)
    set_strategy(cfg)
    add_training_hooks(cfg, args.override_schedule)
    run_checks(data_checks(cfg, 'train', 'val'))
    runner_cfg.set_visualization(cfg)
    runner_cfg.set_loader_timeouts(cfg)
    return cfg


def train(args):
    """Train; returns the exit status, which is not 0 if a signal has stopped the training."""
    from addp_mm import compat
    from addp_mm.datasets.faults.worker_faults import named_worker_faults
    from addp_mm.engine.build_errors import name_sections
    from addp_mm.engine.disk_errors import stop_on_full_disk
    from addp_mm.engine.early_log import early_log
    from addp_mm.engine.process_group import close_process_group
    from addp_mm.engine.runner_cfg import build_runner, scale_by_optimizer_steps
    from addp_mm.errors import RESUME, exit_on_user_error
    from addp_mm.stop_signals import TrainingStopped

    status = 0
    with exit_on_user_error(remedy=RESUME), named_worker_faults(), name_sections(), early_log() as write_early:
        runner = build_runner(prepare(args))
        write_early(runner.logger)
        stop_on_full_disk(runner.logger)
        runner.logger.info(compat.summary())
        scale_by_optimizer_steps(runner)
        try:
            runner.train()
        except TrainingStopped as stopped:
            status = stopped.code
        close_process_group()
    return status


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm.engine.rank_watch import watched_ranks
    from addp_mm.stop_signals import GO_ON, exit_on_stop

    with watched_ranks(f'{GO_ON} from the last checkpoint'), exit_on_stop(is_awaited=args.launcher != 'none'):
        status = train(args)
    if status:
        from addp_mm.engine.process_group import end_process

        end_process(status)


if __name__ == '__main__':
    main()
    from addp_mm.engine.process_group import end_process

    end_process()
