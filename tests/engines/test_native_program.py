"""A native program makes the steps of eager: the same records, the same state, the same endings of its blocks."""

import math
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gradopt.contracts import Objective
from gradopt.engines.eager import EagerEngine
from gradopt.engines.native.program import NativeProgram
from gradopt.engines.purity import Refusal
from gradopt.engines.tracing import trace
from gradopt.optimisers.torch import TorchOptimiser
from gradopt.oracle import AutogradOracle

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

NEVER = math.inf
COLUMNS = ("loss", "gradient_norm", "step_norm")


class Problem(Objective):
    def __init__(self, function: Callable[..., Tensor], *starts: Tensor, bounds: Any = None) -> None:
        super().__init__()
        self.x = nn.ParameterList([nn.Parameter(start.clone()) for start in starts])
        self._function, self._bounds = function, bounds

    def forward(self, batch: Any = None) -> Tensor:
        return self._function(*self.x)

    def bounds(self) -> Any:
        return {} if self._bounds is None else {"x.0": self._bounds}


class Pair:
    """The same problem twice: run by eager, and by a program that takes over behind the first update."""

    def __init__(
        self, problem: Callable[[], Objective], optimiser: Any, /, *, made: Any = None, **options: Any
    ) -> None:
        def parts() -> tuple[AutogradOracle, TorchOptimiser]:
            oracle = AutogradOracle(problem())
            adapter = TorchOptimiser(optimiser(oracle.parameters, **options), **(made or {}))
            return oracle, adapter

        self.eager = EagerEngine(*parts())
        self.oracle, self.optimiser = parts()
        first = EagerEngine(self.oracle, self.optimiser)
        before = first.advance(1, {}, NEVER) and self.oracle.read()
        first.update()
        self.graph = trace(self.oracle, self.optimiser)
        self.program = NativeProgram(self.graph)
        self.program.step_norm = (self.oracle.read() - before).abs().max().item()

    def records(self, rows: int) -> Tensor:
        """Eager's, behind the first row."""
        block = self.eager.advance(rows + 1, {}, NEVER)
        return torch.stack([block[name].flatten()[1:] for name in COLUMNS], dim=1)

    def rates(self) -> Tensor:
        return torch.tensor([group["lr"] for group in self.optimiser.optimizer.param_groups], dtype=torch.float64)

    def run(self, rows: int, *watched: tuple[int, float, float], stop: float = NEVER) -> Tensor:
        return self.program.run(self.rates().expand(rows, -1), watched, stop)

    def update(self) -> None:
        self.program.update(self.rates())


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def valley(n: int, dtype: torch.dtype = torch.float64) -> Callable[[], Objective]:
    return lambda: Problem(rosenbrock, torch.tensor([-1.2, 1.0], dtype=dtype).repeat(n // 2))


def cubic(dtype: torch.dtype = torch.float64, bounds: Any = (-2.0, 2.0)) -> Callable[[], Objective]:
    start = torch.tensor(2.0, dtype=dtype)
    return lambda: Problem(lambda x: 5 * x**3 + 2 * x**2 + 4 * x + 8, start, bounds=bounds)


def regression(dtype: torch.dtype = torch.float64) -> Callable[[], Objective]:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(40, 7, generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.randn(40, 3, generator=generator, dtype=torch.float64).to(dtype)

    def loss(weights: Tensor, offset: Tensor) -> Tensor:
        return F.mse_loss(torch.tanh(F.linear(data, weights, offset)), targets) + 0.01 * weights.abs().sum()

    return lambda: Problem(loss, torch.zeros(3, 7, dtype=dtype), torch.zeros(3, dtype=dtype))


OPTIMISERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"lr": 1e-4}),
    "momentum": (torch.optim.SGD, {"lr": 1e-4, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (torch.optim.SGD, {"lr": 1e-4, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    "adamax": (torch.optim.Adamax, {"lr": 0.01}),
    "nadam": (torch.optim.NAdam, {"lr": 0.01}),
    "radam": (torch.optim.RAdam, {"lr": 0.01}),
    "adadelta": (torch.optim.Adadelta, {"lr": 1.0}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.01}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 1e-3, "centered": True, "momentum": 0.5}),
    "rprop": (torch.optim.Rprop, {"lr": 1e-3}),
    "asgd": (torch.optim.ASGD, {"lr": 1e-4}),
}
BITWISE = ("sgd", "momentum", "nesterov")


@pytest.mark.parametrize("name", OPTIMISERS)
def test_records_are_those_of_eager_for_every_optimiser(name):
    optimiser, options = OPTIMISERS[name]
    pair = Pair(valley(12), optimiser, **options)
    torch.testing.assert_close(pair.run(60), pair.records(60), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(pair.oracle.read(), pair.eager.oracle.read(), rtol=1e-12, atol=1e-13)
    state = pair.eager.optimiser.state_dict()["optimizer"]["state"]
    torch.testing.assert_close(pair.optimiser.state_dict()["optimizer"]["state"], state, rtol=1e-10, atol=1e-12)
    if name in BITWISE:
        assert torch.equal(pair.oracle.read(), pair.eager.oracle.read())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem", [cubic, lambda dtype: valley(2, dtype)], ids=["cubic", "valley"])
@pytest.mark.parametrize("name", BITWISE)
def test_descent_has_the_bits_of_eager(name, problem, dtype):
    optimiser, options = OPTIMISERS[name]
    pair = Pair(problem(dtype), optimiser, **options)
    ours, eager = pair.run(200), pair.records(200)
    assert torch.equal(ours[:, :2], eager[:, :2])
    # Eager takes the difference of two values of one unknown in float64.
    torch.testing.assert_close(ours[:, 2], eager[:, 2], rtol=0.0, atol=1e-7 * eager[1:, 2].max().item(), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("problem", [cubic, regression], ids=["cubic", "regression"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_records_are_those_of_eager_within_rounding(name, problem, dtype):
    optimiser, options = OPTIMISERS[name]
    pair = Pair(problem(dtype), optimiser, **options, made={"clip_norm": 3.0})
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(pair.run(100), pair.records(100), rtol=100 * eps, atol=100 * eps)


def test_blocks_however_cut_are_one_run_to_the_last_bit():
    whole, cut = (Pair(valley(12), torch.optim.Adam, lr=0.01) for _ in range(2))
    parts = []
    for rows in (1, 62, 1, 66, 20):
        if parts:
            cut.update()
        parts.append(cut.run(rows))
    assert torch.equal(torch.cat(parts), whole.run(150))
    assert torch.equal(cut.oracle.read(), whole.oracle.read())


@pytest.mark.parametrize("column", range(3))
def test_a_block_ends_at_the_first_row_outside_a_band_and_before_its_update(column):
    pair, full, reference = (Pair(valley(2), torch.optim.SGD, lr=1e-3) for _ in range(3))
    values = full.run(40)[:, column]
    limit = values[17].item()
    falls = limit < values[0]
    row = int(((values <= limit) if falls else (values >= limit)).nonzero()[0])
    records = pair.run(40, (column, limit, math.inf) if falls else (column, -math.inf, limit))
    assert len(records) == row + 1 > 1
    reference.records(row + 1)
    assert torch.equal(pair.oracle.read(), reference.eager.oracle.read())
    gradients = pair.oracle.parameters[0].grad, reference.eager.oracle.parameters[0].grad
    assert gradients[0] is not None and gradients[1] is not None
    assert torch.equal(*gradients)


def test_a_loss_that_is_no_number_moves_nothing():
    def problem() -> Objective:
        return Problem(lambda x: x.log().sum(), torch.tensor([0.3, 2.0], dtype=torch.float64))

    pair = Pair(problem, torch.optim.SGD, lr=0.05)
    eager = pair.records(2)
    records = pair.run(50, (0, -math.inf, math.inf))
    row = int(records[:, 0].isnan().nonzero()[0])
    assert row == len(records) - 1 > 0
    torch.testing.assert_close(records, eager[: len(records)], rtol=0, atol=0, equal_nan=True)
    point = pair.oracle.read()
    assert point[0] < 0 < point[1], "the point whose loss is no number, before its update"
    assert pair.program.best is not None
    assert pair.program.best[0] == records[:row, 0].min()


def test_the_best_point_is_the_first_of_the_lowest_loss():
    pair = Pair(valley(12), torch.optim.SGD, lr=1.5e-3, momentum=0.9)
    points, losses = [], []
    for _ in range(80):
        losses.append(pair.run(1)[0, 0].item())
        points.append(pair.oracle.read())
        pair.update()
    found = pair.program.best
    assert found is not None
    assert found[0] == min(losses) < losses[-1]
    assert torch.equal(found[1], points[losses.index(min(losses))])
    pair.program.best = None
    pair.run(1)
    assert pair.program.best is not None
    assert pair.program.best[0] > found[0]


def test_each_row_has_its_own_learning_rates():
    def grouped(parameters: Any, lr: float) -> torch.optim.Optimizer:
        weights, offset = parameters
        return torch.optim.SGD([{"params": [weights], "lr": lr}, {"params": [offset], "lr": 3 * lr}])

    pair, reference = Pair(regression(), grouped, lr=0.1), Pair(regression(), grouped, lr=0.1)
    rates = torch.rand(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    records = pair.program.run(rates, (), NEVER)
    engine = reference.eager
    rows = [engine.advance(1, {}, NEVER)["loss"]]
    for row in range(20):
        engine.update()
        rows.append(engine.advance(1, {}, NEVER)["loss"])
        for group, rate in zip(reference.eager.optimiser.optimizer.param_groups, rates[row], strict=True):  # type: ignore[attr-defined]
            group["lr"] = rate.item()
    torch.testing.assert_close(records[:, 0], torch.cat(rows[1:]).flatten(), rtol=1e-13, atol=0)


def test_the_clock_ends_a_block():
    pair = Pair(valley(100), torch.optim.Adam, lr=1e-3)
    began = time.perf_counter()
    records = pair.run(50_000_000 // 24, stop=began + 0.05)
    assert 1 < len(records) < 50_000_000 // 24
    assert 0.04 < time.perf_counter() - began < 2
    assert len(pair.run(100, stop=began)) < 100


def test_a_state_that_is_loaded_is_the_one_that_is_used():
    pair, other = (Pair(valley(12), torch.optim.Adam, lr=0.01) for _ in range(2))
    pair.run(30)
    pair.update()
    saved, point = pair.optimiser.state_dict(), pair.oracle.read()
    expected = pair.run(30)
    other.optimiser.load_state_dict(saved)
    other.oracle.write(point)
    assert torch.equal(other.run(30)[1:], expected[1:])


def test_unknowns_may_be_dense_in_any_order_but_not_share_memory():
    start = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def problem() -> Objective:
        objective = Problem(lambda x: (x @ x.t()).square().sum() + x[1:].sum(), start)
        objective.x[0].data = start.t().contiguous().t()
        return objective

    pair = Pair(problem, torch.optim.Adam, lr=0.01)
    torch.testing.assert_close(pair.run(30), pair.records(30), rtol=1e-12, atol=1e-13)
    assert pair.program.best is not None
    assert torch.equal(pair.program.best[1], pair.oracle.read())

    def gappy() -> Objective:
        objective = problem()
        objective.x[0].data = torch.zeros(5, 8, dtype=torch.float64)[:, ::2]  # type: ignore[index]
        return objective

    with pytest.raises(Refusal, match="does not fill its memory"):
        Pair(gappy, torch.optim.SGD, lr=0.01)

    memory = torch.zeros(20, dtype=torch.float64)

    def shared() -> Objective:
        objective = Problem(lambda x, y: ((x - y) ** 2).sum(), memory[:12], memory[8:])
        objective.x[0].data, objective.x[1].data = memory[:12], memory[8:]  # type: ignore[index]
        return objective

    def loss(objective: Any) -> Tensor:
        return objective.x[0].sum() + objective.x[1].square().sum()

    with pytest.raises(Refusal, match="share memory"):
        Pair(lambda: _with(shared(), loss), torch.optim.SGD, lr=0.01)


def _with(objective: Objective, loss: Callable[[Any], Tensor]) -> Objective:
    objective._function = lambda *_: loss(objective)  # type: ignore[attr-defined]
    return objective


def test_adam_on_many_parameters_of_all_ranks():
    def loss(scalar: Tensor, vector: Tensor, matrix: Tensor, empty: Tensor) -> Tensor:
        return (scalar * matrix.sum(0)[:3] - vector).square().sum() + matrix.exp().mean() + empty.sum()

    starts = [torch.tensor(0.5), torch.ones(3), torch.linspace(-1, 1, 12).reshape(3, 4), torch.zeros(0)]
    pair = Pair(lambda: Problem(loss, *starts), torch.optim.Adam, lr=0.01)
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(pair.run(100), pair.records(100), rtol=100 * eps, atol=100 * eps)
