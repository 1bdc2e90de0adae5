"""What the package is before it computes: light, typed, and as its stubs say."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import glasshead
from glasshead import _native


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


def test_importing_it_imports_nothing_heavy():
    code = "import sys, glasshead; print(*(n for n in sys.modules if n in {'torch', 'transformers', 'polars', 'ray'}))"
    assert fresh(code).split() == []


def test_importing_it_is_quick():
    code = "import time; t = time.perf_counter(); import glasshead; print(time.perf_counter() - t)"
    assert min(float(fresh(code)) for _ in range(3)) < 0.1


def test_the_stubs_are_true(tmp_path):
    pytest.importorskip("mypy")
    config = tmp_path / "mypy.ini"
    # The module itself is of numpy alone; to read all of torch takes a minute.
    config.write_text("[mypy]\n[mypy-torch.*,transformers.*,polars.*,pyarrow.*]\nfollow_imports = skip\n")
    command = [sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", str(config), "glasshead._native"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_hold(tmp_path):
    for needed in ("mypy", "transformers", "polars", "pyarrow"):
        pytest.importorskip(needed)
    package = Path(glasshead.__file__).parent
    assert (package / "py.typed").exists()
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "-p", "glasshead"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_function_says_what_it_does():
    pytest.importorskip("torch")
    for name in glasshead.__all__:
        thing = getattr(glasshead, name)
        assert name.startswith("__") or inspect.getdoc(thing), name
    assert glasshead.__version__ == _native.__version__
    with pytest.raises(AttributeError, match="no attribute"):
        _ = glasshead.attentoin
