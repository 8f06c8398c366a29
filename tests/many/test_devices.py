"""Many starts on a device that is not the CPU, and shares no tensor with it: what a GPU asks of the code around it."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

import gradopt
from gradopt.engines import compiled_lanes, loss_graph
from gradopt.engines.masked_lanes import MaskedLanes
from gradopt.many import assembly as assemblies
from tests import elsewhere
from tests import functions as f
from tests.many.test_law import log_well
from tests.many.test_programs import drawn, hollow

pytestmark = pytest.mark.skipif(elsewhere.SETUP is None, reason="this torch has no devices written in Python")

CASES = {
    "momentum": (hollow, drawn(20), {"optimiser": "sgd", "optimiser_options": {"lr": 1e-3, "momentum": 0.5}}),
    "numbers in common": (hollow, drawn(20), {"optimiser": "nadam"}),
    "choices by masks": (hollow, drawn(20), {"optimiser": "rprop"}),
    "bounds and clipping": (
        hollow,
        drawn(20).clamp(-1.4, 1.7),
        {"optimiser": "adam", "optimiser_options": {"clip_norm": 0.3, "clip_value": 0.2}, "bounds": (-1.5, 1.8)},
    ),
    "ends one by one": (
        f.parabola,
        torch.linspace(-30, 30, 41, dtype=torch.float64).unsqueeze(1),
        {"optimiser": "adam", "optimiser_options": {"lr": 0.5}, "stop": gradopt.Stop(max_steps=400)},
    ),
    "a start that turns nan": (
        log_well,
        torch.tensor([[2.0], [-1.0], [0.5]]),
        {"optimiser": "adam", "optimiser_options": {"lr": 0.05, "clip_norm": 0.1}},
    ),
}


@pytest.fixture(scope="module")
def process():
    """Another one, so that torch has the device there alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_prepare) as pool:
        yield pool


def _prepare():
    elsewhere.use()
    torch.set_num_threads(1)
    loss_graph._constants = lambda module: {}  # it tells tensors by their addresses, and the device has none
    compiled_lanes.code_of = lambda function, inputs: function
    compiled_lanes.held = lambda tensor: tensor
    assemblies.PROGRAMS["cuda_graph"] = lambda graph, number: MaskedLanes(graph, _watched)


def _watched(row):
    """A row that may neither read what is on the device nor take anything there: that cannot be captured."""

    def watched():
        before = len(elsewhere.copies)
        row()
        assert {(source, target) for source, target, _ in elsewhere.copies[before:]} <= {(elsewhere.NAME,) * 2}

    return watched


def _run(name, engine):
    function, starts, options = CASES[name]
    options = {"stop": gradopt.Stop(max_steps=50), **options}
    found = gradopt.minimise(function, starts=starts.to(elsewhere.NAME), engine=engine, **options)
    return found.x.device.type, found.x.cpu(), found.verdicts.codes, found.nit, found.nfev


@pytest.mark.parametrize("engine", ["eager", pytest.param("compiled", marks=pytest.mark.slow), "cuda_graph"])
@pytest.mark.parametrize(
    "name", [name if name == "choices by masks" else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_device_changes_no_verdict_of_many(process, name, engine):
    function, starts, options = CASES[name]
    options = {"stop": gradopt.Stop(max_steps=50), **options}

    device, points, codes, steps, evaluations = process.submit(_run, name, engine).result()

    usual = gradopt.minimise(function, starts=starts, engine="eager", **options)
    assert device == elsewhere.NAME
    assert torch.equal(codes, usual.verdicts.codes)
    assert torch.equal(steps, usual.nit) and torch.equal(evaluations, usual.nfev)
    torch.testing.assert_close(points, usual.x, rtol=1e-4 if points.dtype is torch.float32 else 1e-9, atol=1e-6)
