# Copyright (c) addp_mm contributors. Apache-2.0.
"""Another backbone in a config of mmdet, mmsegmentation or mmpretrain."""
