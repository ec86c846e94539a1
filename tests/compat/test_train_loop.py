# Copyright (c) addp_mm contributors. Apache-2.0.
"""The patch of the training loop by iterations."""

from helpers.modules import module_with

from addp_mm.compat.train_loop import patch_train_loop


def test_the_training_loop_reads_nothing_before_the_first_batch():
    from mmengine.runner import loops

    read = []

    class Loader:
        def __iter__(self):
            read.append(True)
            return iter('ab')

    original = loops._InfiniteDataloaderIterator.__mro__[1]
    if original is not object:  # patched: this version has the fault
        original(Loader())
        assert read.pop()
    batches = loops._InfiniteDataloaderIterator(Loader())
    assert not read
    assert [next(batches), next(batches)] == ['a', 'b']
    assert read == [True]
    healthy = module_with(_InfiniteDataloaderIterator=loops._InfiniteDataloaderIterator)
    assert not patch_train_loop(healthy)
    assert healthy._InfiniteDataloaderIterator is loops._InfiniteDataloaderIterator
