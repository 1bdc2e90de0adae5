import numpy as np
import pytest


@pytest.fixture
def make():
    """q, k and v of random numbers: make(batch, heads, kv_heads, queries, keys, dim, value_dim)."""

    def make(batch=2, heads=4, kv_heads=2, queries=20, keys=33, dim=16, value_dim=8, dtype="float32", seed=1):
        random = np.random.default_rng(seed)
        shapes = [(batch, heads, queries, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, value_dim)]
        return [random.standard_normal(shape).astype(dtype) for shape in shapes]

    return make
