# Copyright (c) addp_mm contributors. Apache-2.0.
# The tokenizer of size base with twice as many steps: published ADDP of both sizes shares one
# tokenizer. Not measured.
_base_ = ['./tokenizer_base.py']
own_data = dict(max_iters=300000)
