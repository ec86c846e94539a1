# Copyright (c) addp_mm contributors. Apache-2.0.
"""Swap three backbones into stock configs of each package, and write the table of docs/swap.md.

Each case is one ``addp swap`` with its trial: the config is planned, written and read, its model is
built with random weights, predicts, and is trained for one step. A case has its own process and a
time limit. The results are in ``.dev/swap_table.json``; cases that are there are not run again.
"""

import argparse
import io
import json
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import textwrap
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_json, write_text
from addp_mm.config.config_file import load_config
from addp_mm.config.shipped import tool_path
from addp_mm.config.stock import PACKAGES

ROOT = Path(__file__).parents[1]
DOC = ROOT / 'docs/swap.md'
RESULTS = Path(__file__).with_name('swap_table.json')
MARKS = ('<!-- table of .dev/swap_table.py -->', '<!-- end of the table -->')
BACKBONES = ('addp_b', 'swin_t', 'volo_d1')
CONFIGS = {
    'mmdet': """
        faster_rcnn/faster-rcnn_r50_fpn_1x_coco
        mask_rcnn/mask-rcnn_r50_fpn_1x_coco
        cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco
        point_rend/point-rend_r50-caffe_fpn_ms-1x_coco
        htc/htc-without-semantic_r50_fpn_1x_coco
        libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco
        dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco
        grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco
        queryinst/queryinst_r50_fpn_1x_coco
        sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco
        retinanet/retinanet_r50_fpn_1x_coco
        fcos/fcos_r50-caffe_fpn_gn-head_1x_coco
        atss/atss_r50_fpn_1x_coco
        gfl/gfl_r50_fpn_1x_coco
        paa/paa_r50_fpn_1x_coco
        vfnet/vfnet_r50_fpn_1x_coco
        tood/tood_r50_fpn_1x_coco
        ddod/ddod_r50_fpn_1x_coco
        fsaf/fsaf_r50_fpn_1x_coco
        foveabox/fovea_r50_fpn_4xb4-1x_coco
        reppoints/reppoints-moment_r50_fpn_1x_coco
        centernet/centernet-update_r50-caffe_fpn_ms-1x_coco
        rtmdet/rtmdet_l_8xb32-300e_coco
        yolox/yolox_s_8xb8-300e_coco
        yolof/yolof_r50-c5_8xb8-1x_coco
        ssd/ssd300_coco
        solo/solo_r50_fpn_1x_coco
        yolact/yolact_r50_8xb8-55e_coco
        condinst/condinst_r50_fpn_ms-poly-90k_coco_instance
        boxinst/boxinst_r50_fpn_ms-90k_coco
        ld/ld_r50-gflv1-r101_fpn_1x_coco
        detr/detr_r50_8xb2-150e_coco
        conditional_detr/conditional-detr_r50_8xb2-50e_coco
        dab_detr/dab-detr_r50_8xb2-50e_coco
        deformable_detr/deformable-detr_r50_16xb2-50e_coco
        dino/dino-4scale_r50_8xb2-12e_coco
        ddq/ddq-detr-4scale_r50_8xb2-12e_coco
        mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic
        maskformer/maskformer_r50_ms-16xb1-75e_coco
        panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco
    """,
    'mmseg': """
        upernet/upernet_r50_4xb4-160k_ade20k-512x512
        fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512
        pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512
        deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512
        deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512
        segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512
        mask2former/mask2former_r50_8xb2-160k_ade20k-512x512
        setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512
        setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512
        segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512
        dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512
        sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512
        point_rend/pointrend_r50_4xb4-160k_ade20k-512x512
        knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512
        ocrnet/ocrnet_r101-d8_8xb2-80k_cityscapes-512x1024
        danet/danet_r50-d8_4xb4-80k_ade20k-512x512
        ccnet/ccnet_r50-d8_4xb4-80k_ade20k-512x512
        encnet/encnet_r50-d8_4xb4-80k_ade20k-512x512
        emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024
        gcnet/gcnet_r50-d8_4xb4-80k_ade20k-512x512
        psanet/psanet_r50-d8_4xb4-80k_ade20k-512x512
        isanet/isanet_r50-d8_4xb4-80k_ade20k-512x512
        san/san-vit-b16_coco-stuff164k-640x640
    """,
    'mmpretrain': """
        resnet/resnet50_8xb32_in1k
        deit/deit-base_16xb64_in1k
        swin_transformer/swin-tiny_16xb64_in1k
        convnext/convnext-tiny_32xb128_in1k
        mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k
        mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k
        beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k
        mobilenet_v2/mobilenet-v2_8xb32_in1k
    """,
}


def names() -> list[str]:
    """Names of the configs."""
    return [f'{package}::{file}.py' for package, files in CONFIGS.items() for file in files.split()]


def run_case(config: str, backbone: str, connection) -> None:
    """Run one swap in this process and send its result."""
    printed = io.StringIO()
    try:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(printed), redirect_stderr(printed):
            swap_tool().main([config, '--backbone', backbone, '--out', f'{folder}/swapped.py', '--json'])
        report = json.loads(printed.getvalue())
        result = dict(error=None, no_trial=report['trial_error'], parameters=report['parameters']['after'])
    except SystemExit as error:
        result = dict(error=str(error.code).removeprefix('error: '))
    except Exception as error:  # the other cases can still be run
        where = traceback.extract_tb(error.__traceback__)[-1]
        result = dict(error=f'{type(error).__name__}: {error} ({where.filename}, line {where.lineno})', unforeseen=True)
    connection.send(result)


def swap_tool():
    """The module ``tools/swap.py``."""
    spec = spec_from_file_location('swap_tool', tool_path('swap.py'))
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def in_new_process(config: str, backbone: str, limit: float) -> dict:
    """Run one case in a copy of this process, which has the packages in memory already."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_case, args=(config, backbone, sender))
    start = time.monotonic()
    process.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(limit) else dict(error=f'not finished in {limit:g} s')
    except EOFError:
        result = dict(error='the process ended without a result')
    process.kill()
    process.join()
    texts = {name: without_folders(text) for name, text in result.items() if isinstance(text, str)}
    return dict(result, **texts, seconds=round(time.monotonic() - start, 1))


def without_folders(text: str) -> str:
    """A text in one line, without the folders of this machine."""
    return re.sub(r'[^ (]*/site-packages/', '', ' '.join(text.split())).replace(f'{ROOT}/', '')


def model_of(config: str) -> str:
    """Class of a config's model, and that of its head."""
    model = load_config(config).model
    heads = ('decode_head', 'panoptic_head', 'mask_head', 'bbox_head', 'roi_head', 'head')
    head = next((model[name] for name in heads if model.get(name)), {})
    head = head[-1] if isinstance(head, list) else head
    return model.type + (f', {head["type"]}' if 'type' in head else '')


def finished(results: dict) -> dict:
    """The results of configs with all backbones, in the order of the list."""
    return {name: results[name] for name in names() if len(results.get(name, {}).get('cases', ())) == len(BACKBONES)}


def table(results: dict) -> str:
    """The table as Markdown; causes of failures are listed below it.

    Args:
        results: Those of configs with all backbones.
    """
    causes: list[str] = []
    untried = False
    lines = [
        f'| Config | Model | {" | ".join(f"`{name}`" for name in BACKBONES)} |',
        '|---|---|' + '---|' * len(BACKBONES),
    ]
    for config, row in results.items():
        cells = []
        for backbone in BACKBONES:
            result = row['cases'][backbone]
            cause = _readable((result['error'] or result['no_trial'] or '').removeprefix(f'{config} with {backbone}: '))
            cause = cause.removeprefix(f'{config}: ')
            untried |= bool(cause and not result['error'])
            if cause and cause not in causes:
                causes.append(cause)
            number = f' ({causes.index(cause) + 1})' if cause else ''
            cells.append(('–' if result['error'] else '✓') + number)
        lines.append(f'| `{config}` | {row["model"]} | {" | ".join(cells)} |')
    passed = sum(line.count('✓') for line in lines)
    total = len(results) * len(BACKBONES)
    lines += ['', f'{passed} of {total} swaps are possible, in {len(results)} configs.']
    if causes:
        lines += [
            '',
            'Causes (behind ✓: the original config cannot be tried either):' if untried else 'Causes:',
            '',
            *(_item(*one) for one in enumerate(causes, 1)),
        ]
    return '\n'.join(lines)


def _item(number: int, text: str) -> str:
    return textwrap.fill(f'{number}. {text}', 100, subsequent_indent='   ', break_on_hyphens=False)


def _readable(error: str) -> str:
    """An error that is safe in Markdown."""
    return error.replace('|', '\\|').replace('<', '&lt;')


def write_table(results: dict) -> None:
    """Write the table between the marks of docs/swap.md."""
    before, mark, rest = DOC.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not (mark and end):
        sys.exit(f'error: {DOC} has no {" … ".join(MARKS)}')
    write_text(DOC, f'{before}{mark}\n{table(results)}\n{end}{after}')


def main() -> None:
    """Run the cases that have no result yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', action='extend', help='parts of names of configs or backbones')
    parser.add_argument('--again', action='store_true', help='run cases again that failed')
    parser.add_argument('--limit', type=float, default=600, help='seconds for one case [600]')
    parser.add_argument('--no-run', action='store_true', help='only write the table')
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if not args.no_run:
        import_packages()
        run_cases(results, args)
    write_table(finished(results))


def import_packages() -> None:
    """Import what the cases need, so that their processes have it."""
    for package in PACKAGES:
        for part in ('models', 'datasets', 'engine'):
            __import__(f'{package}.{part}')
    import timm  # noqa: F401
    import torch

    from addp_mm.swap import check, plan_swap, report, timm_entry, trial, write_config  # noqa: F401

    torch.set_num_threads(1)  # a process that is copied must have one thread
    logging.disable(logging.WARNING)


def run_cases(results: dict, args: argparse.Namespace) -> None:
    """Run the cases that have no result, and save each result at once."""
    for config in names():
        for backbone in BACKBONES:
            if not any(part in f'{config} {backbone}' for part in args.only or ['']):
                continue
            row = results.setdefault(config, dict(model=model_of(config), cases={}))
            done = row['cases'].get(backbone)
            if done is not None and not (args.again and (done['error'] or done.get('no_trial'))):
                continue
            row['cases'][backbone] = result = in_new_process(config, backbone, args.limit)
            print(f'{result["seconds"]:6.1f} s  {config}  {backbone}  {result["error"] or "passed"}', flush=True)
            write_json(RESULTS, results)


if __name__ == '__main__':
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    main()
