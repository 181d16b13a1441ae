import sys
from types import ModuleType

from ytvis.optional import import_native


def test_kernels_of_an_older_source_are_not_used(monkeypatch, caplog):
    kernels = ModuleType("old_kernels")
    kernels.measure = len
    monkeypatch.setitem(sys.modules, "old_kernels", kernels)
    assert import_native("old_kernels", "measure") is kernels
    assert not caplog.messages
    assert import_native("old_kernels", "measure", "compress") is None
    assert caplog.messages == [
        "old_kernels was compiled from an older source and is not used: install the package again"
    ]


def test_kernels_that_are_not_compiled_are_none():
    assert import_native("ytvis._no_such_kernels", "measure") is None
