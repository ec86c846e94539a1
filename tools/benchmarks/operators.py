# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time mmcv's operators as addp_mm provides them, against torchvision or a plain computation.

Sizes are those of a usual detector. The tool fails if the results of a pair differ. Operators that
differentiate are timed forward and backward.
"""

import argparse

from addp_mm.cli_options import add_timing_options, number

TOLERANCE = 1e-3


def parse_args(argv=None):
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--op', nargs='+', action='extend', choices=list(OPERATORS), help='operators [all]')
    parser.add_argument('--scale', type=number(float, 0.001, 1), default=1.0, help='share of the usual sizes [1]')
    add_timing_options(parser)
    return parser.parse_args(argv)


class Inputs:
    """Random inputs of one device, smaller by a factor.

    Args:
        device: The device.
        scale: The factor, from 0 to 1.
    """

    def __init__(self, device, scale):
        import torch

        self.device, self.scale = device, scale
        self.generator = torch.Generator().manual_seed(0)

    def size(self, usual):
        """A size, at least 2."""
        return max(2, round(usual * self.scale))

    def rand(self, *shape, grad=False):
        """Uniform numbers."""
        import torch

        return torch.rand(shape, generator=self.generator).to(self.device).requires_grad_(grad)

    def boxes(self, count, side):
        """Boxes x1, y1, x2, y2 inside a square image, and scores."""
        import torch

        starts = self.rand(count, 2) * 0.8 * side
        sides = (0.02 + 0.18 * self.rand(count, 2)) * side
        # no two scores are equal, so that an order is the only right one
        scores = (torch.randperm(count, generator=self.generator).float() + 1) / (count + 1)
        return torch.cat([starts, starts + sides], dim=1), scores.to(self.device)

    def rotated(self, count, side):
        """Boxes x, y, width, height, angle inside a square image, and scores."""
        import torch

        centers = (0.2 + 0.6 * self.rand(count, 2)) * side
        sides = (0.02 + 0.18 * self.rand(count, 2)) * side
        scores = (torch.randperm(count, generator=self.generator).float() + 1) / (count + 1)
        return torch.cat([centers, sides, 6 * self.rand(count, 1) - 3], dim=1), scores.to(self.device)

    def rois(self, count, side):
        """Boxes of image 0, with its index first."""
        import torch

        boxes = self.boxes(count, side)[0]
        return torch.cat([torch.zeros(count, 1, device=self.device), boxes], dim=1)


def differentiated(function, *inputs):
    """A call of a function and of its backward pass: returns the output and all gradients."""
    import torch

    flows = {}

    def run():
        for tensor in inputs:
            tensor.grad = None
        out = function(*inputs)
        if out.shape not in flows:  # gradients that differ, so that none is lost in a sum
            flows[out.shape] = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)
        out.backward(flows[out.shape])
        return [out.detach(), *(tensor.grad for tensor in inputs)]

    return run


def nms(make):
    """2000 proposals of an image; torchvision."""
    import torchvision
    from mmcv.ops import nms as ours

    boxes, scores = make.boxes(make.size(2000), 1000)
    return lambda: ours(boxes, scores, 0.7)[1], lambda: torchvision.ops.nms(boxes, scores, 0.7)


def nms_offset(make):
    """The same with boxes of whole pixels, as in mmdet 1.x; a loop over the kept boxes."""
    import torch
    from mmcv.ops import nms as ours

    boxes, scores = make.boxes(make.size(2000), 1000)

    def plain():
        order, kept = scores.argsort(descending=True), []
        overlaps = pixel_overlaps(boxes, boxes)
        while len(order):
            kept.append(order[0])
            order = order[1:][overlaps[order[0], order[1:]] <= 0.7]
        return torch.stack(kept)

    return lambda: ours(boxes, scores, 0.7, offset=1)[1], plain


def pixel_overlaps(one, other):
    """IoU of boxes whose last row and column of pixels belong to them."""
    import torch
    import torchvision

    grow = torch.tensor([0, 0, 1, 1], device=one.device)
    return torchvision.ops.box_iou(one + grow, other + grow)


def batched_nms(make):
    """5000 boxes of 80 classes; torchvision."""
    import torchvision
    from mmcv.ops import batched_nms as ours

    boxes, scores = make.boxes(make.size(5000), 1000)
    classes = (make.rand(len(boxes)) * 80).long()
    own = dict(type='nms', iou_threshold=0.5)
    return lambda: ours(boxes, scores, classes, own)[1], lambda: torchvision.ops.batched_nms(
        boxes, scores, classes, 0.5
    )


def nms_rotated(make):
    """2000 rotated boxes; a loop over the kept boxes."""
    import torch
    from mmcv.ops import box_iou_rotated
    from mmcv.ops import nms_rotated as ours

    boxes, scores = make.rotated(make.size(2000), 1000)

    def plain():
        order, kept = scores.argsort(descending=True), []
        overlaps = box_iou_rotated(boxes, boxes)
        while len(order):
            kept.append(order[0])
            order = order[1:][overlaps[order[0], order[1:]] < 0.1]
        return torch.stack(kept)

    return lambda: ours(boxes, scores, 0.1)[1], plain


def nms_match(make):
    """1000 boxes; a loop over the kept boxes."""
    import torch
    import torchvision
    from mmcv.ops import nms_match as ours

    boxes, scores = make.boxes(make.size(1000), 1000)
    rows = torch.cat([boxes, scores[:, None]], dim=1)

    def plain():
        order, groups = scores.argsort(descending=True), []
        overlaps = torchvision.ops.box_iou(boxes, boxes)
        while len(order):
            hits = overlaps[order[0], order] >= 0.5
            hits[0] = True
            groups.append(order[hits])
            order = order[~hits]
        return groups

    return lambda: list(ours(rows, 0.5)), plain


def _soft_nms(make, method):
    import torch
    import torchvision
    from mmcv.ops import soft_nms as ours

    boxes, scores = make.boxes(make.size(1000), 1000)

    def plain():
        overlaps = torchvision.ops.box_iou(boxes, boxes)
        weights = torch.exp(-(overlaps**2) / 0.5) if method == 'gaussian' else 1 - overlaps * (overlaps > 0.3)
        left, order = scores.clone(), []
        while left.max() > 1e-3:
            best = int(left.argmax())
            order.append(best)
            left[best] = -1
            left = torch.where(left > 0, left * weights[best], left)
        return torch.tensor(order, device=boxes.device)

    return lambda: ours(boxes, scores, 0.3, 0.5, 1e-3, method)[1], plain


def soft_nms(make):
    """1000 boxes, linear weights; a loop over the boxes."""
    return _soft_nms(make, 'linear')


def soft_nms_gaussian(make):
    """1000 boxes, Gaussian weights; a loop over the boxes."""
    return _soft_nms(make, 'gaussian')


def roi_align(make):
    """1000 boxes on a map of stride 4, forward and backward; torchvision."""
    import torchvision
    from mmcv.ops import roi_align as ours

    side = make.size(200)
    rois = make.rois(make.size(1000), 4 * side)
    maps = make.rand(1, 64, side, side, grad=True)
    own = differentiated(lambda x: ours(x, rois, (7, 7), 0.25, 2, 'avg', True), maps)
    return own, differentiated(lambda x: torchvision.ops.roi_align(x, rois, (7, 7), 0.25, 2, True), maps)


def roi_align_max(make):
    """The same with the maximum of the points; torchvision with a bin for each point."""
    import torch
    import torch.nn.functional as F
    import torchvision
    from mmcv.ops import roi_align as ours

    side, count = make.size(200), make.size(1000)
    # whole values, read at eighths of a pixel: no sum is rounded, and equal maxima stay equal
    maps = (255 * make.rand(1, 64, side, side)).round().requires_grad_()
    first = (make.rand(count, 2) * 0.8 * side).round()
    sides = 3.5 * (1 + 11 * make.rand(count, 2)).round()
    rois = torch.cat([torch.zeros(count, 1, device=make.device), 4 * first, 4 * (first + sides)], dim=1)

    def plain(x):
        return F.max_pool2d(torchvision.ops.roi_align(x, rois, (14, 14), 0.25, 1, True), 2)

    own = differentiated(lambda x: ours(x, rois, (7, 7), 0.25, 2, 'max', True), maps)
    return own, differentiated(plain, maps)


def roi_pool(make):
    """1000 boxes on a map of stride 4, forward and backward; torchvision."""
    import torch
    import torchvision
    from mmcv.ops import roi_pool as ours

    side, count = make.size(200), make.size(1000)
    maps = make.rand(1, 64, side, side, grad=True)
    # torchvision rounds edges to pixels, mmcv does not: boxes whose bins are 1 to 6 whole pixels
    first = (make.rand(count, 2) * 0.8 * side).round()
    sides = 7 * (1 + 5 * make.rand(count, 2)).round()
    image = torch.zeros(count, 1, device=make.device)
    mmcv_rois = torch.cat([image, 4 * first, 4 * (first + sides) - 1], dim=1)
    rois = torch.cat([image, 4 * first, 4 * (first + sides - 1)], dim=1)
    own = differentiated(lambda x: ours(x, mmcv_rois, (7, 7), 0.25), maps)
    return own, differentiated(lambda x: torchvision.ops.roi_pool(x, rois, (7, 7), 0.25), maps)


def roi_align_rotated(make):
    """1000 rotated boxes on a map of stride 4, forward and backward; torch's grid_sample."""
    import torch
    import torch.nn.functional as F
    from mmcv.ops import roi_align_rotated as ours

    side, count = max(24, make.size(200)), make.size(1000)
    boxes = make.rotated(count, 4 * side)[0]
    rois = torch.cat([torch.zeros(count, 1, device=make.device), boxes], dim=1)
    maps = make.rand(1, 64, side, side, grad=True)
    steps = (torch.arange(14, device=make.device) + 0.5) / 14 - 0.5

    def plain(x):
        center_x, center_y, width, height, angle = boxes[:, :, None, None].unbind(1)
        right, down = width * steps, height * steps[:, None]
        points = torch.stack(
            [right * angle.cos() - down * angle.sin() + center_x, right * angle.sin() + down * angle.cos() + center_y],
            dim=-1,
        )
        grid = (points / 4 - 0.5).view(1, count * 14, 14, 2) * 2 / (side - 1) - 1
        sampled = F.grid_sample(x, grid, align_corners=True).view(64, count, 14, 14)
        return F.avg_pool2d(sampled, 2).transpose(0, 1)

    own = differentiated(lambda x: ours(x, rois, (7, 7), 0.25, 2, True, True), maps)
    return own, differentiated(plain, maps)


def deform_roi_pool(make):
    """1000 boxes with shifted bins, forward and backward; torch's grid_sample."""
    import torch
    import torch.nn.functional as F
    from mmcv.ops import deform_roi_pool as ours

    side, count = max(24, make.size(200)), make.size(1000)
    maps = make.rand(1, 64, side, side, grad=True)
    # points inside the map, at odd multiples of 1/128 pixel: both read the same four pixels
    start = (make.rand(count, 2) * 0.5 * side).round() + 1 / 128
    extent = 7 * (1 + 3 * make.rand(count, 2) * make.scale).round()
    first = 4 * (start + 0.5)
    rois = torch.cat([torch.zeros(count, 1, device=make.device), first, first + 4 * extent], dim=1)
    shifts = (8 * make.rand(count, 2, 7, 7)).round().div(8).requires_grad_()
    steps = (torch.arange(14, device=make.device) + 0.5) / 14

    def plain(x, moved):
        axes = []
        for axis in (0, 1):
            at = (start[:, axis, None] + extent[:, axis, None] * steps).view((-1, 7, 2))
            at = at[:, None, :, None, :] if axis == 0 else at[:, :, None, :, None]
            axes.append(at + (0.125 * extent[:, axis, None, None] * moved[:, axis])[..., None, None])
        grid = torch.stack(torch.broadcast_tensors(*axes), dim=-1).view(1, count * 49, 4, 2)
        sampled = F.grid_sample(x, grid * 2 / (side - 1) - 1, align_corners=True).mean(-1)
        return sampled.view(64, count, 7, 7).transpose(0, 1)

    own = differentiated(lambda x, moved: ours(x, rois, moved, (7, 7), 0.25, 2, 0.125), maps, shifts)
    return own, differentiated(plain, maps, shifts)


def _deformable(make, with_mask):
    import torchvision
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d

    side = make.size(64)
    maps, weight = make.rand(1, 64, side, side, grad=True), make.rand(64, 64, 3, 3, grad=True)
    offset = make.rand(1, 18, side, side, grad=True)
    if not with_mask:
        own = differentiated(lambda x, o, w: deform_conv2d(x, o, w, 1, 1), maps, offset, weight)
        return own, differentiated(
            lambda x, o, w: torchvision.ops.deform_conv2d(x, o, w, padding=1), maps, offset, weight
        )
    inputs = maps, offset, make.rand(1, 9, side, side, grad=True), weight
    own = differentiated(lambda x, o, m, w: modulated_deform_conv2d(x, o, m, w, None, 1, 1), *inputs)
    plain = differentiated(lambda x, o, m, w: torchvision.ops.deform_conv2d(x, o, w, padding=1, mask=m), *inputs)
    return own, plain


def deform_conv(make):
    """3 x 3 on a map of 64 x 64, forward and backward; torchvision."""
    return _deformable(make, with_mask=False)


def modulated_deform_conv(make):
    """The same with a mask; torchvision."""
    return _deformable(make, with_mask=True)


def ms_deform_attn(make):
    """Four maps, 8 heads, every position a query, forward and backward; mmcv's plain function."""
    import torch
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    sides = [make.size(64) // 2**level + 1 for level in range(4)]
    shapes = torch.tensor([[side, side] for side in sides], device=make.device)
    areas = shapes.prod(1)
    starts = torch.cat([areas.new_zeros(1), areas.cumsum(0)[:-1]])
    queries = int(areas.sum())
    value = make.rand(1, queries, 8, 32, grad=True)
    locations = make.rand(1, queries, 8, 4, 4, 2, grad=True)
    weights = make.rand(1, queries, 8, 4, 4, grad=True)
    apply = MultiScaleDeformableAttnFunction.apply
    own = differentiated(lambda v, at, w: apply(v, shapes, starts, at, w, 64), value, locations, weights)
    plain = multi_scale_deformable_attn_pytorch
    return own, differentiated(lambda v, at, w: plain(v, shapes, at, w), value, locations, weights)


def sigmoid_focal_loss(make):
    """20,000 anchors and 80 classes, forward and backward; torchvision."""
    import torch.nn.functional as F
    import torchvision
    from mmcv.ops import sigmoid_focal_loss as ours

    logits = make.rand(make.size(20000), 80, grad=True)
    labels = (make.rand(len(logits)) * 80.99).long()  # 80 is the background
    wanted = F.one_hot(labels, 81)[:, :80].float()
    own = differentiated(lambda x: ours(x, labels, 2.0, 0.25, None, 'none'), logits)
    return own, differentiated(lambda x: torchvision.ops.sigmoid_focal_loss(x, wanted, 0.25, 2.0), logits)


def softmax_focal_loss(make):
    """20,000 anchors and 80 classes, forward and backward; softmax and logarithm of torch."""
    from mmcv.ops import softmax_focal_loss as ours

    logits = make.rand(make.size(20000), 80, grad=True)
    labels = (make.rand(len(logits)) * 79.99).long()

    def plain(x):
        logs = x.log_softmax(1).gather(1, labels[:, None])
        return -0.25 * ((1 - logs.exp()) ** 2 * logs).sum()

    return differentiated(lambda x: ours(x, labels, 2.0, 0.25, None, 'sum'), logits), differentiated(plain, logits)


def bbox_overlaps(make):
    """2000 boxes against 100; torchvision."""
    import torchvision
    from mmcv.ops import bbox_overlaps as ours

    one, other = make.boxes(make.size(2000), 1000)[0], make.boxes(make.size(100), 1000)[0]
    return lambda: ours(one, other), lambda: torchvision.ops.box_iou(one, other)


def carafe(make):
    """A map of 64 x 64 to twice the size, kernel 5, forward and backward; unfold and a product."""
    import torch.nn.functional as F
    from mmcv.ops import carafe as ours

    side = make.size(64)
    maps = make.rand(1, 64, side, side, grad=True)
    masks = make.rand(1, 25, 2 * side, 2 * side, grad=True)

    def plain(x, m):
        windows = F.unfold(x, 5, padding=2).view(1, 64 * 25, side, side)
        windows = F.interpolate(windows, scale_factor=2).view(1, 64, 25, 2 * side, 2 * side)
        return (windows * m[:, None]).sum(2)

    own = differentiated(lambda x, m: ours(x, m, 5, 1, 2), maps, masks)
    return own, differentiated(plain, maps, masks)


def masked_conv(make):
    """3 x 3 where a mask is positive, on a map of 64 x 64; a convolution of the whole map."""
    import torch
    import torch.nn.functional as F
    from mmcv.ops import masked_conv2d as ours

    side = make.size(64)
    maps, mask = make.rand(1, 64, side, side), (make.rand(1, side, side) > 0.5).float()
    weight, bias = make.rand(64, 64, 3, 3), make.rand(64)

    def own():
        with torch.no_grad():
            return ours(maps, mask, weight, bias, 1)

    return own, lambda: F.conv2d(maps, weight, bias, padding=1) * mask


def psa_mask(make):
    """Masks of 97 x 97 for a map of 49 x 49, forward and backward; one index of all."""
    import torch
    from mmcv.ops import PSAMask

    side = make.size(49)
    size = 2 * side - 1
    layer = PSAMask('collect', (size, size))
    masks = make.rand(1, size**2, side, side, grad=True)
    numbers = torch.arange(masks.numel(), device=make.device).view(size, size, side, side)
    middle = range(side - 1, -1, -1)  # where the map starts in the mask of its first, second, ... row
    rows = [
        torch.stack([numbers[i : i + side, j : j + side, side - 1 - i, side - 1 - j] for j in middle]) for i in middle
    ]
    index = torch.stack(rows).permute(2, 3, 0, 1).reshape(1, side**2, side, side)
    return differentiated(layer, masks), differentiated(lambda x: x.flatten()[index], masks)


def sync_bn(make):
    """A map of 256 x 64 x 64 of 2 images on one rank, forward and backward; torch's batch norm."""
    import torch.nn.functional as F
    from mmcv.ops.sync_bn import SyncBatchNormFunction

    side = make.size(64)
    maps = make.rand(2, 256, side, side, grad=True)
    weight, bias = make.rand(256, grad=True), make.rand(256, grad=True)
    mean, var = make.rand(256), make.rand(256)

    def own(x, w, b):
        return SyncBatchNormFunction.apply(x, mean, var, w, b, 0.1, 1e-5, None, 1, 'default')

    def plain(x, w, b):
        return F.batch_norm(x, mean, var, w, b, True, 0.1, 1e-5)

    return differentiated(own, maps, weight, bias), differentiated(plain, maps, weight, bias)


OPERATORS = {
    one.__name__: one
    for one in (
        nms,
        nms_offset,
        batched_nms,
        nms_rotated,
        nms_match,
        soft_nms,
        soft_nms_gaussian,
        roi_align,
        roi_align_max,
        roi_pool,
        roi_align_rotated,
        deform_roi_pool,
        deform_conv,
        modulated_deform_conv,
        ms_deform_attn,
        sigmoid_focal_loss,
        softmax_focal_loss,
        bbox_overlaps,
        carafe,
        masked_conv,
        psa_mask,
        sync_bn,
    )
}


def check_agreement(name, own, other):
    """Fail if the results of a pair differ.

    Raises:
        SystemExit: They differ.
    """
    import torch

    results = [out if isinstance(out, list) else [out] for out in (own, other)]
    for one, two in zip(*results, strict=True):
        scale = max(1.0, float(two.abs().max())) if two.numel() else 1.0
        if one.shape != two.shape or not torch.allclose(one.float(), two.float(), atol=TOLERANCE * scale):
            raise SystemExit(f'error: {name}: the results differ from those of the reference')


def groups(args):
    """A pair for each operator."""
    from addp_mm.benchmark.paired_times import Case
    from addp_mm.benchmark.timed_tool import Group

    for name in args.op or OPERATORS:
        about = OPERATORS[name].__doc__.strip().rstrip('.')
        own, other = OPERATORS[name](Inputs(args.device, args.scale))
        check_agreement(name, own(), other())
        # of these operators, torch counts the convolutions only
        cases = [Case('reference', other, count=lambda: 0), Case('addp_mm', own, count=lambda: 0)]
        yield Group(f'{name}: {about}', cases)


def main(argv=None):
    """Measure, print the tables, and write them."""
    args = parse_args(argv)
    import addp_mm.registry  # noqa: F401  # before mmcv.ops, which needs its operators
    from addp_mm.benchmark.timed_tool import measure_groups, prepare
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    with exit_on_interrupt('finished groups are in --out'), exit_on_user_error():
        prepare(args)
        measure_groups('Operators', groups(args), args)


if __name__ == '__main__':
    main()
