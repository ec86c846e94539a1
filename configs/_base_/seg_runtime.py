# Copyright (c) addp_mm contributors. Apache-2.0.
# The runtime of mmseg's configs. mmseg's Inferencer and tools draw with the visualizer of the
# config.
_base_ = './default_runtime.py'
default_scope = 'mmseg'
visualizer = dict(type='SegLocalVisualizer')
