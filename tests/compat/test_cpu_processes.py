# Copyright (c) addp_mm contributors. Apache-2.0.
"""Two processes on the CPU through mmengine's own launcher, wrappers and strategies."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from helpers.modules import module_with

import addp_mm  # noqa: F401

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason='shows what happens without an accelerator'),
]

WORKER = """
import sys
import addp_mm
import torch
from helpers.modules import module_with
from mmengine.dist import get_world_size, get_backend
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import FlexibleRunner, Runner

folder = sys.argv[1]

class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)
        self.bn = torch.nn.BatchNorm1d(2)

    def forward(self, inputs, mode='tensor'):
        return dict(loss=(self.bn(self.fc(inputs)) - 1).square().mean())

data = [dict(inputs=torch.tensor([i, 1.])) for i in range(8)]
settings = dict(
    work_dir=folder, train_dataloader=dict(
        batch_size=2, dataset=data, sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate')),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)), launcher='pytorch', default_scope='mmengine')

def train(epochs, **kwargs):
    torch.manual_seed(0)
    runner = kwargs.pop('kind')(
        model=Toy(), train_cfg=dict(by_epoch=True, max_epochs=epochs), **settings, **kwargs)
    runner.train()
    return runner

model = train(1, kind=Runner, experiment_name='runner').model
assert type(model) is MMDistributedDataParallel and get_backend() == 'gloo' and get_world_size() == 2
weights = [torch.zeros(2, 2), torch.zeros(2, 2)]
torch.distributed.all_gather(weights, model.module.fc.weight.data)
torch.manual_seed(0)
assert torch.equal(*weights) and not torch.equal(weights[0], Toy().fc.weight.data)
print('trained')
try:
    train(1, kind=Runner, cfg=dict(sync_bn='torch'), experiment_name='sync_bn')
except RuntimeError as error:
    assert 'needs a GPU' in str(error)
    print('refused sync_bn')

settings['work_dir'] += '_fsdp'
strategy = dict(type='FSDPStrategy', model_wrapper=dict(type='MMFullyShardedDataParallel', use_orig_params=True),
                state_dict_cfg='full')
train(1, kind=FlexibleRunner, strategy=strategy, experiment_name='fsdp')
runner = train(2, kind=FlexibleRunner, strategy=strategy, resume=True, experiment_name='fsdp_resumed')
steps = {float(state['step']) for state in runner.optim_wrapper.optimizer.state.values() if 'step' in state}
print('resumed', runner.epoch, runner.iter, steps)
torch.distributed.destroy_process_group()
"""


def test_launcher_pytorch_trains_with_gloo_and_fsdp_resumes(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    (tmp_path / 'worker.py').write_text(WORKER)
    processes = []
    for rank in ('0', '1'):
        env = dict(os.environ, RANK=rank, LOCAL_RANK=rank, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        processes.append(
            subprocess.Popen(
                [sys.executable, str(tmp_path / 'worker.py'), str(tmp_path / 'work')],
                env=env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    for process in processes:
        output = process.communicate(timeout=400)[0]
        assert process.returncode == 0, output
        assert 'trained' in output
        assert 'refused sync_bn' in output
        assert 'resumed 2 4 {4.0}' in output


def test_without_the_patches_both_fail(monkeypatch):
    from mmengine.dist import init_dist
    from mmengine.model import MMDistributedDataParallel

    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('LOCAL_RANK', '0')
    with pytest.raises((RuntimeError, AssertionError)):
        init_dist.__wrapped__('pytorch', backend='gloo')
    with pytest.raises((RuntimeError, ValueError)):
        MMDistributedDataParallel.__init__.__wrapped__(
            object.__new__(MMDistributedDataParallel), torch.nn.Linear(1, 1), device_ids=[0]
        )


def test_fsdp_strategy_that_passes_by_name_stays():
    from torch.distributed.fsdp import FullyShardedDataParallel

    from addp_mm.compat.fsdp import patch_fsdp_strategy

    module = module_with(FSDP=FullyShardedDataParallel)

    class FSDPStrategy:
        def load_optim_state_dict(self, state_dict):
            self.optim_wrapper.load_state_dict(
                module.FSDP.optim_state_dict_to_load(
                    optim_state_dict=state_dict, model=self.model, optim=self.optim_wrapper.optimizer
                )
            )

    module.FSDPStrategy = FSDPStrategy
    healthy = FSDPStrategy.load_optim_state_dict
    assert not patch_fsdp_strategy(module)
    assert FSDPStrategy.load_optim_state_dict is healthy
    assert module.FSDP is FullyShardedDataParallel
