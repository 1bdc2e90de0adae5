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


def test_the_stubs_are_true():
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy.stubtest", "glasshead._native"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_types_hold():
    pytest.importorskip("mypy")
    package = Path(glasshead.__file__).parent
    assert (package / "py.typed").exists()
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports", "-p", "glasshead"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=package.parent)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_function_says_what_it_does():
    for name in glasshead.__all__:
        thing = getattr(glasshead, name)
        assert name.startswith("__") or inspect.getdoc(thing), name
    assert glasshead.__version__ == _native.__version__
    with pytest.raises(AttributeError, match="no attribute"):
        _ = glasshead.attentoin
