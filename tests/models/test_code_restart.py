# Copyright (c) addp_mm contributors. Apache-2.0.
"""Moments of restarted codes are reset, and the configs of all tokenizers have the hook."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny_vqgan import build, build_runner
from mmengine.config import Config
from mmengine.hooks import Hook

from addp_mm.engine.hooks import CodeRestartHook

CONFIGS = Path(__file__).parents[2] / 'configs'


PLAIN = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, betas=(0.5, 0.9)))


@pytest.mark.parametrize('algorithm', ['VQGANPretrain', 'TokenizerPretrain'])
def test_moments_of_restarted_codes_are_reset(tmp_path, algorithm):
    """Other moments stay. The reset is before the step, with two optimizers and with one."""
    adversarial = algorithm == 'VQGANPretrain'
    model = build(restart_interval=3, restart_until=9, type=f'addp_mm.{algorithm}')
    drawn, seen = [], []
    restart = model._restart_codes

    def noting(latents):
        restart(latents)
        drawn.append(None if model.restarted is None else model.restarted.clone())

    model._restart_codes = noting

    class Watch(Hook):
        priority = 'LOWEST'

        def before_train(self, runner) -> None:
            codes = runner.model.tokenizer.codes.weight
            wrapper = runner.optim_wrapper['tokenizer'] if adversarial else runner.optim_wrapper
            optimizer = wrapper.optimizer
            optimizer.register_step_pre_hook(
                lambda *_: seen.append({k: v.clone() for k, v in optimizer.state[codes].items()})
            )

    build_runner(
        tmp_path,
        model,
        [dict(type='addp_mm.CodeRestartHook'), Watch()],
        max_iters=5,
        optim_wrapper=None if adversarial else PLAIN,
    ).train()
    assert [restarted is not None for restarted in drawn] == [False, False, False, True, False]
    restarted = drawn[3]
    assert restarted.any()
    assert not restarted.all()
    for moment in ('exp_avg', 'exp_avg_sq'):
        assert not seen[3][moment][restarted].any()
        assert seen[3][moment][~restarted].any(1).all()


def test_without_the_hook_old_moments_push_on():
    """A restarted code without a gradient moves by its old moments."""
    codes = torch.nn.Parameter(torch.zeros(2, 1))
    for forget in (False, True):
        model = SimpleNamespace(restarted=None, tokenizer=SimpleNamespace(codes=SimpleNamespace(weight=codes)))
        optimizer = torch.optim.Adam([codes], lr=0.1)
        runner = SimpleNamespace(
            model=model, optim_wrapper=SimpleNamespace(optimizer=optimizer, param_groups=optimizer.param_groups)
        )
        hook = CodeRestartHook()
        if forget:
            hook.before_train(runner)
        codes.grad = torch.ones(2, 1)
        optimizer.step()
        codes.data[1] = 5.0
        model.restarted = torch.tensor([False, True])
        codes.grad = torch.zeros(2, 1)
        optimizer.step()
        assert (codes[1].item() == 5.0) is forget
        assert codes[0].item() != 5.0
        hook.after_train(runner)


def test_every_tokenizer_config_has_the_hook():
    paths = [*CONFIGS.glob('pretrain/vq*.py'), *CONFIGS.glob('_base_/own_data/tokenizer_*.py')]
    assert len(paths) > 6
    for path in paths:
        cfg = Config.fromfile(path)
        assert cfg.model.restart_until, path
        assert any(hook.type == 'addp_mm.CodeRestartHook' for hook in cfg.custom_hooks), path
