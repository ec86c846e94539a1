# Copyright (c) addp_mm contributors. Apache-2.0.
import threading
import time

import pytest

from addp_mm.generation.image_folder import ImageWriters


def submit(writers, numbers, then=lambda: None):
    with writers:
        for number in numbers:
            writers.submit(number)
        then()


def test_all_items_are_written():
    written = []
    with ImageWriters(lambda number, text: written.append((number, text)), num_threads=3, limit=4) as writers:
        for number in range(50):
            writers.submit(number, str(number))
    assert sorted(written) == [(number, str(number)) for number in range(50)]


def test_no_more_than_the_limit_wait():
    go, submitted = threading.Event(), []

    def submit_five(writers):
        for number in range(5):
            writers.submit(number)
            submitted.append(number)

    with ImageWriters(lambda number: go.wait(), num_threads=1, limit=3) as writers:
        thread = threading.Thread(target=submit_five, args=(writers,))
        thread.start()
        while len(submitted) < 3:
            time.sleep(0.01)
        thread.join(0.1)
        assert thread.is_alive()
        assert submitted == [0, 1, 2]
        go.set()
        thread.join()
    assert submitted == [0, 1, 2, 3, 4]


def test_an_error_of_a_writer_stops_the_run():
    written = []

    def write(number):
        if number == 2:
            raise OSError('the disk is full')
        written.append(number)

    with pytest.raises(OSError, match='the disk is full'):
        submit(ImageWriters(write, num_threads=1, limit=1), range(100))
    assert written == [0, 1]


def test_an_error_of_the_last_item_is_raised_too():
    def write(number):
        raise OSError('the disk is full')

    with pytest.raises(OSError, match='the disk is full'):
        submit(ImageWriters(write, num_threads=1, limit=1), [0])


def test_an_interruption_leaves_waiting_items_out():
    started, go, written = threading.Event(), threading.Event(), []

    def write(number):
        started.set()
        go.wait()
        written.append(number)

    def interrupt():
        started.wait()
        threading.Timer(0.1, go.set).start()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit(ImageWriters(write, num_threads=1, limit=9), range(5), then=interrupt)
    assert written == [0]
