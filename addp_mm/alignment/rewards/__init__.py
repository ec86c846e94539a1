# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rewards of images: any callable, given as a config."""

from addp_mm.alignment.rewards.classifier_reward import ClassifierReward
from addp_mm.alignment.rewards.metric_reward import MetricReward
from addp_mm.alignment.rewards.reward import Reward, RewardError, build_reward
from addp_mm.alignment.rewards.scene_reward import SceneReward

__all__ = ['ClassifierReward', 'MetricReward', 'Reward', 'RewardError', 'SceneReward', 'build_reward']
