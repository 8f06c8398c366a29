"""The same verdicts on a CUDA device as on the CPU."""

import pytest
import torch

import gradopt
from tests import functions as f

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
