# Copyright (c) addp_mm contributors. Apache-2.0.
"""init_weights() initialises as the module's own method does, but logs no parameter."""

import logging

import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from torch import nn

from addp_mm.checkpoints.init_weights import init_weights


class Network(BaseModule):
    """A network whose init_weights() logs a line."""

    def __init__(self) -> None:
        super().__init__(init_cfg=dict(type='Constant', layer='Linear', val=0.5, bias=2.0))
        self.layer = nn.Linear(2, 3)

    def init_weights(self) -> None:
        """Initialise and log."""
        super().init_weights()
        MMLogger.get_current_instance().info('initialised')


def test_weights_are_initialised_and_no_parameter_is_logged():
    records = []
    handler = logging.Handler(logging.INFO)
    handler.emit = records.append
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    try:
        network = Network()
        init_weights(network)
        assert [record.getMessage() for record in records] == ['initialised']
        Network().init_weights()  # the module's own method logs two parameters
        assert len(records) == 4
    finally:
        logger.removeHandler(handler)
    assert torch.equal(network.layer.weight, torch.full((3, 2), 0.5))
