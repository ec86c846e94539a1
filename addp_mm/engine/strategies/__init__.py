# Copyright (c) addp_mm contributors. Apache-2.0.
"""Strategies of distributed training."""

from addp_mm.engine.strategies.sharded import ShardedStrategy
from addp_mm.engine.strategies.zero import ZeroStrategy

__all__ = ['ShardedStrategy', 'ZeroStrategy']
