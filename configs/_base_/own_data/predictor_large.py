# Copyright (c) addp_mm contributors. Apache-2.0.
# The predictor of size base with twice as many steps: published ADDP uses MAGE ViT-B as the
# predictor of both sizes. Not measured.
_base_ = ['./predictor_base.py']
own_data = dict(max_iters=300000)
