# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np

from addp_mm.generation.image_folder import ImageFiles, Progress

IMAGE = np.zeros((2, 2, 3), np.uint8)


def test_one_process_counts_steps(tmp_path, capsys):
    with Progress(ImageFiles(tmp_path), num_images=10, num_missing=4, alone=True, shown=True) as progress:
        for _ in range(8):
            progress.advance(0.5)
    assert '| 10/10 images [' in capsys.readouterr().err.split('\r')[-1]


def test_several_processes_count_the_files_of_all(tmp_path, capsys):
    files = ImageFiles(tmp_path)
    for index in (0, 1, 99):  # an image beyond those of this run
        files.write(index, IMAGE)
    with Progress(files, num_images=6, num_missing=4, alone=False, shown=True) as progress:
        progress.advance(0.5)
        for index in (2, 5):
            files.write(index, IMAGE)
        progress.count_files()
    assert '| 4/6 images [' in capsys.readouterr().err.split('\r')[-1]


def test_other_processes_show_nothing(tmp_path, capsys):
    with Progress(ImageFiles(tmp_path), num_images=6, num_missing=4, alone=False, shown=False) as progress:
        progress.advance(1)
        progress.count_files()
    assert capsys.readouterr().err == ''
