# Copyright (c) addp_mm contributors. Apache-2.0.
"""Test a checkpoint with a config and write the metrics as JSON."""

from pathlib import Path

from addp_mm.cli_options import ToolParser, add_runner_options, parse_runner_args, read_runner_config


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file, or the name of a shipped config')
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='path or URL of the checkpoint; not needed for a config without training, such as k-NN',
    )
    parser.add_argument('--work-dir', help='folder for logs and metrics [work_dirs/<config name>]')
    parser.add_argument('--out', help='JSON file for the metrics [<work dir>/metrics.json]')
    parser.add_argument(
        '--show-dir',
        help="folder for all images with the drawn predictions; a classifier's images keep their path "
        'below the root of the dataset',
    )
    add_runner_options(parser)
    return parse_runner_args(parser, argv)


def prepare(args):
    """Read, check and complete the config, before a model is built. Writes repaired annotations."""
    from addp_mm.checks.check_list import data_checks, run_checks
    from addp_mm.checks.weights import require_checkpoint, require_weights
    from addp_mm.config.paths import require_writable
    from addp_mm.engine import runner_cfg
    from addp_mm.engine.added_hooks import add_test_hooks
    from addp_mm.engine.strategy_cfg import set_strategy

    cfg = read_runner_config(args, needed=('model', 'test_dataloader', 'test_cfg', 'test_evaluator'))
    if args.checkpoint is None:
        require_weights(cfg)
    else:
        args.checkpoint = require_checkpoint(args.checkpoint)
    args.out = args.out or str(Path(cfg.work_dir) / 'metrics.json')
    require_writable(args.out, '--out')
    cfg.load_from, cfg.resume = args.checkpoint, False
    runner_cfg.set_timeout(cfg)
    set_strategy(cfg, testing=True)
    run_checks(data_checks(cfg, 'test'))
    runner_cfg.set_visualization(cfg, args.show_dir, testing=True)
    runner_cfg.set_loader_timeouts(cfg)
    add_test_hooks(cfg)
    return cfg


def main(argv=None):
    """Run the tool."""
    args = parse_args(argv)
    from addp_mm import compat
    from addp_mm.checkpoints.atomic_write import write_json
    from addp_mm.datasets.faults.worker_faults import named_worker_faults
    from addp_mm.engine.build_errors import name_sections
    from addp_mm.engine.disk_errors import stop_on_full_disk
    from addp_mm.engine.early_log import early_log
    from addp_mm.engine.process_group import close_process_group
    from addp_mm.engine.rank_watch import watched_ranks
    from addp_mm.engine.runner_cfg import build_runner
    from addp_mm.errors import SAME_COMMAND, exit_on_interrupt, exit_on_user_error

    with (
        watched_ranks(),
        exit_on_interrupt('no metrics were written', with_sigterm=False),
        exit_on_user_error(),
        named_worker_faults(),
        name_sections(),
        early_log() as write_early,
    ):
        cfg = prepare(args)
        runner = build_runner(cfg)
        write_early(runner.logger)
        stop_on_full_disk(runner.logger, SAME_COMMAND)
        runner.logger.info(compat.summary())
        if args.checkpoint is None:
            # mmengine's Runner has no public method that initialises weights on all ranks
            runner._init_model_weights()  # noqa: SLF001
        metrics = runner.test()
        close_process_group()
        if runner.rank == 0:
            numbers = {name: value.tolist() if hasattr(value, 'tolist') else value for name, value in metrics.items()}
            write_json(args.out, numbers)
            print(f'metrics: {args.out}')


if __name__ == '__main__':
    main()
    from addp_mm.engine.process_group import end_process

    end_process()
