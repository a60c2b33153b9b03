"""What `import fercache` offers: everything that it lists, loaded when it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import fercache


@pytest.mark.parametrize("name", fercache.__all__)
def test_every_name_is_there(name):
    offered = getattr(fercache, name)
    assert offered.__name__ == name and offered.__module__.startswith("fercache.")
    assert name in dir(fercache)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fercache' has no attribute 'finetunes'"):
        fercache.finetunes  # noqa: B018 - it raises


def test_the_import_loads_neither_torch_nor_h5py():
    code = "import fercache, sys; print(sorted({'torch', 'h5py', 'numpy', 'click'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_types_are_shipped():
    assert (Path(fercache.__file__).parent / "py.typed").exists()
