"""The same verdicts on a CUDA device as on the CPU."""

import pytest
import torch

import gradopt
from tests import functions as f
from tests.many.test_law import log_well
from tests.many.test_programs import drawn

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: the CUDA path is unproven"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam", "torch_lbfgs"])
@pytest.mark.parametrize(
    ("function", "x0"), [(f.parabola, [0.0, 1.0]), (f.cubic, 2.0), (f.hill, 0.0), (f.saddle, [0.0, 0.0])]
)
def test_a_device_changes_no_verdict(function, x0, optimiser, dtype):
    options = {"lr": 0.01} if optimiser != "torch_lbfgs" else {"line_search_fn": "strong_wolfe"}
    results = [
        gradopt.minimise(
            function,
            torch.tensor(x0, dtype=dtype, device=device),
            optimiser=optimiser,
            optimiser_options=options,
            stop=gradopt.Stop(max_steps=2000),
        )
        for device in ("cpu", "cuda")
    ]

    assert results[0].status is results[1].status
    assert results[1].x.device.type == "cuda"
    torch.testing.assert_close(results[1].x.cpu(), results[0].x, rtol=1e-4, atol=1e-4)


MANY = {
    "ends one by one": (f.parabola, torch.linspace(-60, 60, 121).unsqueeze(1), {"optimiser_options": {"lr": 0.5}}),
    "a start that turns nan": (
        log_well,
        torch.tensor([[2.0], [-1.0], [0.5]]),
        {"optimiser_options": {"lr": 0.05, "clip_norm": 0.1}},
    ),
    "saddle": (f.saddle, torch.tensor([[0.0, 0.0], [1.0, 0.5], [1.0, 0.0]]), {"optimiser_options": {"lr": 0.05}}),
    "schedule": (f.rosenbrock, drawn(1000), {"schedule": {"name": "cosine", "T_max": 100}}),
    "bounds": (f.cubic_sum, torch.tensor([[2.0], [-2.0], [0.5]]), {"bounds": (-2.0, 2.0)}),
    "sgd": (f.rosenbrock, drawn(1000), {"optimiser": "sgd", "optimiser_options": {"lr": 1e-4, "momentum": 0.9}}),
    "rprop": (f.rosenbrock, drawn(1000), {"optimiser": "rprop"}),
}


@pytest.mark.parametrize("engine", ["eager", "compiled", "cuda_graph"])
@pytest.mark.parametrize("name", MANY)
def test_a_device_changes_no_verdict_of_many(name, engine):
    function, starts, options = MANY[name]
    options = {"optimiser": "adam", "stop": gradopt.Stop(max_steps=300), **options}
    starts = starts.double()

    usual = gradopt.minimise(function, starts=starts, engine="eager", **options)
    found = gradopt.minimise(function, starts=starts.cuda(), engine=engine, **options)

    assert found.x.device.type == "cuda"
    assert torch.equal(found.verdicts.codes, usual.verdicts.codes)
    assert bool(((found.nit - usual.nit).abs() <= (0.01 * usual.nit).clamp(min=2)).all())
    assert torch.equal(found.nfev - found.nit, usual.nfev - usual.nit)
    torch.testing.assert_close(found.x.cpu(), usual.x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("engine", ["compiled", "cuda_graph"])
def test_a_million_starts_on_a_device(engine):
    options = {"optimiser": "adam", "optimiser_options": {"lr": 0.01}, "stop": gradopt.Stop(max_steps=300)}

    found = gradopt.minimise(f.rosenbrock, starts=drawn(1_000_000).cuda(), engine=engine, **options)

    some = gradopt.minimise(f.rosenbrock, starts=drawn(1_000_000)[:100], engine="eager", **options)
    assert torch.equal(found.verdicts.codes[:100], some.verdicts.codes)
    torch.testing.assert_close(found.x[:100].cpu(), some.x, rtol=1e-6, atol=1e-6)
