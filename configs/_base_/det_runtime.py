# Copyright (c) addp_mm contributors. Apache-2.0.
# The runtime of mmdet's configs. mmdet's Inferencer and tools draw with the visualizer of the
# config.
_base_ = './default_runtime.py'
default_scope = 'mmdet'
visualizer = dict(type='DetLocalVisualizer')
