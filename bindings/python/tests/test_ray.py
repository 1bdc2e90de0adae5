"""Beyond one machine: a local Ray stands for several."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from test_parts import CUTS, EVERYTHING, SEEN, same

ray = pytest.importorskip("ray", reason="NOT TESTED: ray is not here (pip install 'ray[data]')")
pytest.importorskip("ray.data", reason="NOT TESTED: ray.data is not here (pip install 'ray[data]')")

import glasshead  # noqa: E402
import glasshead.ray  # noqa: E402
from glasshead import Read  # noqa: E402

# Not the Ray of somebody else on this machine.
START = {"address": "local", "include_dashboard": False, "log_to_driver": False, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def local():
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    ray.init(num_cpus=2, **START)
    yield
    ray.shutdown()


def cut(array, cuts):
    return [array[:, :, a:b] for a, b in pairwise(cuts)]


@pytest.mark.parametrize("cuts", CUTS, ids=lambda cuts: f"{len(cuts) - 1} parts")
def test_keys_on_several_workers(local, make, cuts):
    for how, sinks in zip(SEEN.values(), 4 * (None, [0.5, -1.0, 2.0, 0.0]), strict=False):
        q, k, v = make()
        read = Read(**EVERYTHING)
        whole = glasshead.attention(q, k, v, sinks=sinks, read=read, **how)
        k_parts = [ray.put(part) for part in cut(k, cuts)]
        same(glasshead.ray.attention(q, k_parts, cut(v, cuts), read, sinks=sinks, **how), whole)


def test_types_and_masks(local, make):
    bf16 = pytest.importorskip("ml_dtypes").bfloat16
    q, k, v = make()
    cuts = [0, 5, 30, 33]
    mask = np.random.default_rng(3).random((20, 33)) > 0.4
    for one in (mask, mask[:, :1]):
        whole = glasshead.attention(q, k, v, mask=one, read="all")
        same(glasshead.ray.attention(ray.put(q), cut(k, cuts), cut(v, cuts), "all", mask=one), whole)
    q, k, v = (x.astype(bf16) for x in (q, k, v))
    whole = glasshead.attention(q, k, v, read="all")
    merged = glasshead.ray.attention(q, cut(k, cuts), cut(v, cuts), "all")
    assert merged.out.dtype == bf16
    # Rounded to bfloat16 (8 bits) in each part, once more when merged, and once in the whole.
    far = np.abs(merged.out.astype(np.float32) - whole.out.astype(np.float32))
    assert far.max() <= 3 * 2**-8 * np.abs(v.astype(np.float32)).max()
    whole.out = merged.out
    same(merged, whole)


def test_torch_tensors(local, make):
    torch = pytest.importorskip("torch")
    q, k, v = (torch.from_numpy(x) for x in make())
    whole = glasshead.attention(q, k, v, causal="top-left", read="entropy,blocks=4")
    merged = glasshead.ray.attention(q, cut(k, [0, 9, 33]), cut(v, [0, 9, 33]), "entropy,blocks=4", causal="top-left")
    assert isinstance(merged.out, torch.Tensor)
    for name, array in whole.arrays().items():
        torch.testing.assert_close(merged.arrays()[name], array, rtol=1e-6, atol=1e-6)


def test_a_wrong_request_is_one_sentence(local, make):
    q, k, v = make()
    parts = cut(k, [0, 9, 33]), cut(v, [0, 9, 33])
    for wrong, sentence in (
        (lambda: glasshead.ray.attention(q, [], []), "0 parts of keys"),
        (lambda: glasshead.ray.attention(q, parts[0], parts[1][:1]), "2 parts of keys and 1 of values"),
        (lambda: glasshead.ray.attention(q, [k[0]], [v[0]]), "part 0 of the keys is"),
        (lambda: glasshead.ray.attention(q, *parts, "entropyy"), "no such readout"),
        (lambda: glasshead.ray.attention(q, *parts, mask=np.ones((20, 9), bool)), "mask has the shape"),
        (lambda: glasshead.ray.attention(q, *parts, causal=True), "two ways"),
        (lambda: glasshead.ray.attention(q, *parts, sinks=[1.0]), "sinks"),
        (lambda: glasshead.ray.attention(q, parts[0], parts[1][::-1]), "v: "),
    ):
        with pytest.raises(ValueError, match=sentence) as refused:
            wrong()
        assert "\nhint: " in str(refused.value) and "Traceback" not in str(refused.value)


CLUSTER = """
import numpy as np, ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
second = cluster.add_node(num_cpus=1, object_store_memory=100 << 20, resources={"second": 1})
ray.init(address=cluster.address, log_to_driver=False)
import glasshead, glasshead.ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

@ray.remote(num_cpus=0)
def keys(seed, count):
    return np.random.default_rng(seed).standard_normal((1, 1, count, 64)).astype("f")

# q is far larger than a part of the keys, and lies with the driver.
q = np.random.default_rng(9).standard_normal((1, 8, 4000, 64)).astype("f")
nodes = [node["NodeID"] for node in ray.nodes()]
assert len(nodes) == 2
ks, vs = ([keys.options(scheduling_strategy=On(nodes[at], soft=False)).remote(seed + at, 1500) for at in (0, 1)]
          for seed in (1, 3))
places = []
asked = glasshead.ray.NodeAffinitySchedulingStrategy
glasshead.ray.NodeAffinitySchedulingStrategy = lambda node, soft: places.append(node) or asked(node, soft=soft)
seen = glasshead.ray.attention(q, ks, vs, "received,entropy", causal="bottom-right")
assert places == nodes * 2, (places, nodes)
# No part was copied to where the other one lies.
held = {ref.hex(): sorted(ray.experimental.get_object_locations([ref])[ref]["node_ids"]) for ref in ks + vs}
assert list(held.values()) == [[node] for node in nodes] * 2, held
k, v = (np.concatenate(ray.get(parts), axis=2) for parts in (ks, vs))
whole = glasshead.attention(q, k, v, causal="bottom-right", read="received,entropy")
np.testing.assert_allclose(seen.out, whole.out, rtol=1e-6, atol=1e-6)
np.testing.assert_allclose(seen.received, whole.received, rtol=4e-6)
ray.shutdown()
cluster.shutdown()
print("computed where they lie")
"""


def test_each_part_is_computed_where_its_keys_lie():
    """Two machines on this one, in a process of their own."""
    done = subprocess.run([sys.executable, "-c", CLUSTER], capture_output=True, text=True, timeout=240)
    assert "computed where they lie" in done.stdout, done.stdout + done.stderr
