"""Imports without garbage collection."""

import gc

import pytest
from perceptune.runtime.imports import large_imports


@pytest.fixture(autouse=True)
def unfrozen():  # type: ignore[no-untyped-def]
    yield
    gc.unfreeze()


def test_no_collection_while_importing() -> None:
    with large_imports():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_was_imported_is_not_searched_again() -> None:
    gc.unfreeze()
    with large_imports():
        kept = [[]]
    assert gc.get_freeze_count() > 0
    assert not any(found is kept for found in gc.get_objects())


def test_collection_goes_on_after_a_failed_import() -> None:
    with pytest.raises(ModuleNotFoundError), large_imports():
        import no_such_module  # noqa: F401
    assert gc.isenabled()
