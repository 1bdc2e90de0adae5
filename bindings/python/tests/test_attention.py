"""``glasshead.attention`` over NumPy arrays, against float64."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest

import glasshead
import reference


def close(found, exact, dtype="float32"):
    assert found.shape == exact.shape
    assert np.abs(found.astype(np.float64) - exact).max(initial=0) <= reference.tolerance(exact, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_plain(make, dtype):
    q, k, v = make(dtype=dtype)
    seen = glasshead.attention(q, k, v)
    assert seen.out.dtype == dtype and isinstance(seen.out, np.ndarray) and seen.out.flags.writeable
    close(seen.out, reference.attention(q, k, v), dtype)


def test_bfloat16_of_ml_dtypes(make):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    q, k, v = (x.astype(ml_dtypes.bfloat16) for x in make())
    seen = glasshead.attention(q, k, v, read="entropy")
    assert seen.out.dtype == ml_dtypes.bfloat16 and seen.entropy.dtype == np.float32
    close(seen.out, reference.attention(q, k, v), "bfloat16")
    assert seen.to_numpy()["out"].dtype == np.float32


@pytest.mark.parametrize("queries", [3, 20])
@pytest.mark.parametrize(("option", "offset"), [("top-left", 0), ("bottom-right", None), (5, 5), (-2, -2)])
def test_causal(make, queries, option, offset):
    q, k, v = make(queries=queries)
    i, j = reference.positions(queries, 33, 33 - queries if offset is None else offset)
    close(glasshead.attention(q, k, v, causal=option).out, reference.attention(q, k, v, visible=j <= i))


def test_causal_true_is_for_squares_alone(make):
    q, k, v = make(queries=33)
    same = glasshead.attention(q, k, v, causal="top-left").out
    assert (glasshead.attention(q, k, v, causal=True).out == same).all()
    q, k, v = make(queries=3)
    with pytest.raises(ValueError, match='two ways.*\nhint: say "bottom-right"'):
        glasshead.attention(q, k, v, causal=True)


def test_window_softcap_scale_sinks_lengths_and_slopes(make):
    q, k, v = make(queries=20, keys=20)
    i, j = reference.positions(20, 20)
    slopes = np.array([0.5, 0.25, 0.125, 0.0625])
    sinks = [0.5, -1.0, 2.0, 0.0]
    lengths = [20, 7]
    seen = glasshead.attention(
        q, k, v, window=(4, 2), softcap=1.5, scale=0.7, sinks=sinks, alibi_slopes=slopes, lengths=lengths
    )
    visible = (j >= i - 4) & (j <= i + 2) & (j < np.array(lengths)[:, None, None, None])
    bias = -slopes[:, None, None] * abs(i - j)
    options = {"visible": visible, "bias": bias, "scale": 0.7, "softcap": 1.5, "sinks": sinks}
    close(seen.out, reference.attention(q, k, v, **options))
    left = 1 - reference.weights(q, k, **options).sum(axis=-1)
    close(seen.sink_weight, np.where(visible.any(axis=-1), left, 0))


@pytest.mark.parametrize("shape", [(33,), (20, 33), (4, 1, 33), (2, 1, 1, 33), (2, 4, 20, 33), (20, 1), (1, 1)])
@pytest.mark.parametrize("kind", ["bool", "float32", "float64", "float16"])
def test_masks_are_broadcast(make, shape, kind):
    q, k, v = make()
    random = np.random.default_rng(3)
    if kind == "bool":
        mask = random.random(shape) < 0.6
        exact = reference.attention(q, k, v, visible=np.broadcast_to(mask, (2, 4, 20, 33)))
    else:
        mask = random.standard_normal(shape).astype(kind)
        exact = reference.attention(q, k, v, bias=mask.astype(np.float64))
    close(glasshead.attention(q, k, v, mask=mask).out, exact)
    expanded = np.broadcast_to(mask, (2, 4, 20, 33))
    close(glasshead.attention(q, k, v, mask=expanded).out, exact)
    odd = np.asfortranarray(expanded)[:, :, :, ::-1][:, :, :, ::-1]
    close(glasshead.attention(q, k, v, mask=odd).out, exact)


def test_a_byte_that_is_no_bool_is_true(make):
    q, k, v = make()
    mask = np.full((20, 33), 2, np.uint8)
    mask[:, 5:] = 0
    exact = reference.attention(q, k, v, visible=mask != 0)
    close(glasshead.attention(q, k, v, mask=mask.view(bool)).out, exact)


def strided(x):
    """The same numbers, in every way in which an array can lie."""
    yield "of tokens", np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3)
    yield "Fortran", np.asfortranarray(x)
    yield "every other", np.repeat(x, 2, axis=3)[..., ::2]
    yield "a part of a larger one", np.pad(x, ((1, 1), (0, 2), (3, 0), (5, 5)))[1:-1, :-2, 3:, 5:-5]
    yield "backwards", x[:, :, ::-1].copy()[:, :, ::-1]
    read_only = x.copy()
    read_only.flags.writeable = False
    yield "read only", read_only
    record = np.zeros(x.shape, np.dtype([("a", "u1"), ("x", x.dtype)]))
    record["x"] = x
    yield "unaligned", record["x"]
    yield "of another byte order", x.astype(x.dtype.newbyteorder())


def test_any_strides(make):
    q, k, v = make()
    exact = glasshead.attention(q, k, v).out
    for (how, q2), (_, k2), (_, v2) in zip(strided(q), strided(k), strided(v), strict=True):
        assert np.array_equal(q2, q), how
        assert np.abs(glasshead.attention(q2, k2, v2).out - exact).max() < 1e-6, how


def test_repeated_heads_and_batches(make):
    q, k, v = make(batch=1, heads=1, kv_heads=1)
    wide = [np.broadcast_to(x, (3, 4, *x.shape[2:])) for x in (q, k, v)]
    out = glasshead.attention(*wide).out
    exact = reference.attention(q, k, v)
    assert out.shape == (3, 4, 20, 8)
    close(out, np.broadcast_to(exact, out.shape))


def test_nothing_to_see_is_zero_and_what_is_hidden_touches_nothing(make):
    q, k, v = make()
    k[:, :, 30:], v[:, :, 30:] = np.nan, np.inf
    seen = glasshead.attention(q, k, v, lengths=[30, 0], read="lse,entropy,top=2")
    exact = reference.attention(q[:1], k[:1, :, :30], v[:1, :, :30])
    close(seen.out[:1], exact)
    assert (seen.out[1] == 0).all() and (seen.lse[1] == -np.inf).all() and (seen.top_index[1] == -1).all()


@pytest.mark.parametrize("shape", [(0, 4, 5, 6), (1, 2, 0, 6)])
def test_empty(shape):
    x = np.zeros(shape, np.float32)
    seen = glasshead.attention(x, x, x, read="all")
    assert seen.out.shape == shape


def test_nothing_is_copied_or_kept(make):
    q, k, v = make()
    gone = weakref.ref(q)
    seen = glasshead.attention(q, k, v)
    del q
    gc.collect()
    assert gone() is None and seen.out.base is None and seen.out.flags.owndata


def test_many_threads_at_once(make):
    data = [make(queries=50, keys=70, seed=seed) for seed in range(8)]
    exact = [glasshead.attention(*one, causal="top-left").out for one in data]
    wrong = []

    def work(at):
        for _ in range(20):
            if not np.array_equal(glasshead.attention(*data[at], causal="top-left").out, exact[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_other_threads_go_on_meanwhile(make):
    q, k, v = make(batch=1, heads=8, kv_heads=8, queries=2000, keys=2000, dim=64, value_dim=64)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (glasshead.attention(q, k, v), done.set()))
    thread.start()
    turns = 0
    while not done.wait(0.0005):
        turns += 1
    thread.join()
    assert turns >= 3, "the GIL was held"


def test_a_forked_process_computes(make):
    q, k, v = make(queries=200, keys=200)
    exact = glasshead.attention(q, k, v).out
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(glasshead.attention(q, k, v).out, exact) else 1)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        threading.Event().wait(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the child hangs")
    assert status == 0


def test_the_number_of_threads_changes_no_bit(make):
    q, k, v = make(queries=300, keys=300)
    before = glasshead.get_num_threads()
    try:
        outs = []
        for threads in (1, 2, 3):
            glasshead.set_num_threads(threads)
            assert glasshead.get_num_threads() == threads
            outs.append(glasshead.attention(q, k, v, read="all"))
    finally:
        glasshead.set_num_threads(before)
    for name in outs[0]:
        assert np.array_equal(outs[0][name], outs[1][name]) and np.array_equal(outs[0][name], outs[2][name])
    with pytest.raises(ValueError, match="at least one"):
        glasshead.set_num_threads(0)
