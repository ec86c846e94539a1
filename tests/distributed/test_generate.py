# Copyright (c) addp_mm contributors. Apache-2.0.
"""Two processes generate the files of one, also after one of them was killed."""

import pytest

pytestmark = pytest.mark.slow
IMAGES = [f'images/{index:06d}.png' for index in range(14)]


@pytest.fixture(scope='module')
def runs(run_jobs):
    return run_jobs('generate')


def test_two_processes_write_the_bytes_of_one(runs):
    one, first, second = runs['alone_0'], runs['both_0'], runs['both_1']
    assert [name for name in one if name.startswith('images/')] == IMAGES
    assert len({one[name] for name in IMAGES}) == len(IMAGES)
    names = [*IMAGES, 'images.npz', 'grid.png']
    assert {name: first[name] for name in names} == {name: one[name] for name in names}
    assert {name: second[name] for name in IMAGES} == {name: one[name] for name in IMAGES}


def test_a_killed_run_keeps_complete_files_and_is_continued(runs):
    one, killed, resumed = runs['alone_0'], runs['killed'], runs['resumed_0']
    complete = [name for name in IMAGES if name in killed]
    assert 2 <= len(complete) < len(IMAGES)
    assert all(killed[name] == one[name] for name in complete)
    assert [name for name in killed if name.endswith('.partial')]
    names = [*IMAGES, 'images.npz']
    assert {name: resumed[name] for name in names} == {name: one[name] for name in names}
    assert not [name for name in resumed if name.endswith('.partial')]
