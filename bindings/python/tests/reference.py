"""Attention in float64, four plain steps, the whole matrix kept: what every result is judged against."""

from __future__ import annotations

import numpy as np


def weights(q, k, *, visible=None, bias=None, scale=None, softcap=None, sinks=None):
    """[batch, heads, queries, keys]; rows without a visible key are 0."""
    q, k = q.astype(np.float64), np.repeat(k.astype(np.float64), q.shape[1] // k.shape[1], axis=1)
    scores = q @ k.swapaxes(-1, -2) * (scale if scale is not None else q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if visible is not None:
        scores = np.where(visible, scores, -np.inf)
    largest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    if sinks is not None:
        sinks = np.asarray(sinks, np.float64)[None, :, None, None]
        largest = np.maximum(largest, sinks)
    largest = np.where(np.isfinite(largest), largest, 0)
    powers = np.exp(scores - largest)
    total = powers.sum(axis=-1, keepdims=True) + (np.exp(sinks - largest) if sinks is not None else 0)
    return np.divide(powers, total, out=np.zeros_like(powers), where=total > 0)


def attention(q, k, v, **options):
    p = weights(q, k, **options)
    return p @ np.repeat(v.astype(np.float64), q.shape[1] // v.shape[1], axis=1)


def entropy(p):
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)


def positions(queries, keys, offset=0):
    """The position of every query, and every key, to be compared."""
    return np.arange(queries)[:, None] + offset, np.arange(keys)[None, :]


def tolerance(exact, dtype):
    """Twice the rounding of the output's type, and what a plain computation in float32 loses."""
    eps = {"float64": 1e-14, "float32": 4e-6, "float16": 2**-10, "bfloat16": 2**-7}[dtype]
    return 2 * eps * max(1.0, float(np.abs(exact).max()))
