# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mean and standard deviation of ImageNet's images, for each of the channels R, G, B in [0, 1]."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
