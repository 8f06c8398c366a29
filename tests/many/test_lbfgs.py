"""L-BFGS of many starts: each decides, counts and ends as its own run does; a run goes on from where it was saved."""

import math
import signal

import pytest
import torch
from torch import Tensor

import gradopt
from gradopt import Status
from gradopt.loop import iterate
from gradopt.many.assembly import assemble_starts
from gradopt.objectives.function import FunctionObjective
from gradopt.settings import Stop
from gradopt.verdicts import Verdicts
from tests import functions as f
from tests.many.test_law import Case, assert_same, log_well


def barrier(x: Tensor) -> Tensor:
    """Its domain is the unit ball."""
    return ((x - 2) ** 2).sum() - torch.log(1 - (x**2).sum())


def wood(x: Tensor) -> Tensor:
    valleys = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2 + 90 * (x[3] - x[2] ** 2) ** 2 + (1 - x[2]) ** 2
    return valleys + 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2) + 19.8 * (x[1] - 1) * (x[3] - 1)


def tiny(x: Tensor) -> Tensor:
    """Products of its gradients underflow in float32."""
    return 1e-25 * f.rosenbrock(x)


def falling(x: Tensor) -> Tensor:
    """The steps grow without end."""
    return -x.sum()


def norm(x: Tensor) -> Tensor:
    """A kink at the minimum."""
    return torch.linalg.vector_norm(x) + 0.1 * (x**2).sum()


def waves(x: Tensor) -> Tensor:
    return (torch.sin(3 * x) + 0.1 * x**2).sum()


def brim(x: Tensor) -> Tensor:
    """It falls to the edge of its domain, at 0."""
    return torch.where(x <= 0, -x, torch.inf).sum()


def drawn(number: int, n: int, low: float, high: float) -> tuple[tuple[float, ...], ...]:
    points = torch.rand(number, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) * (high - low) + low
    return tuple(tuple(point) for point in points.tolist())


CASES = [
    Case("valley", f.rosenbrock, drawn(12, 2, -5, 5)),
    Case("long valley", f.rosenbrock, drawn(6, 10, -2, 2)),
    Case("four unknowns", wood, drawn(8, 4, -4, 4)),
    Case("wall", log_well, (*drawn(6, 2, 0.01, 5), (-1.0, 1.0))),
    Case("ball", barrier, drawn(8, 2, -0.7, 0.7)),
    Case("saddle", f.saddle, ((0.0, 0.0), (1.0, 0.0), (0.3, -0.2))),
    Case("tiny", tiny, drawn(6, 2, -2, 2)),
    Case("falling", falling, drawn(3, 2, -2, 2)),
    Case("kink", norm, drawn(6, 2, -2, 2)),
    Case("waves", waves, drawn(8, 2, -4, 4)),
    Case("brim", brim, ((0.0,), (-1.0,))),
    Case("valley in a box", f.rosenbrock, drawn(8, 10, -0.5, 0.8), (-0.5, 0.8)),
    Case("wood in a box", wood, drawn(8, 4, -3, 0.5), (-3.0, 0.5)),
    Case("waves in a box", waves, drawn(8, 2, -4, 4), (-4.0, 4.0)),
]


def options(case, **stop):
    # Not `auto`, which may change the engine of a long run.
    return {"optimiser": "lbfgs", "bounds": case.bounds, "stop": Stop(**stop), "engine": "eager"}


def is_near(one, alone):
    """Whether the numbers of steps agree as far as rounding alone lets them."""
    return abs(one.nit - alone.nit) <= max(2, 0.01 * alone.nit)


def steps_from_beside(case, start, **given):
    """How many steps runs take from starts that are one rounding away: what a valley or a kink makes of rounding."""
    number = [gradopt.minimise(case.function, start, **given).nit]
    for sign in (1.0, -1.0):
        for index in range(len(start)):
            beside = start.clone()
            beside[index] = torch.nextafter(start[index], start.new_tensor(sign * math.inf))
            number.append(gradopt.minimise(case.function, beside, **given).nit)
    return min(number), max(number)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_start_ends_as_it_does_alone(case, dtype):
    starts, given = torch.tensor(case.starts, dtype=dtype), options(case, max_steps=300)

    many = gradopt.minimise(case.function, starts=starts, **given)

    for start, one in zip(starts, many, strict=True):
        alone = gradopt.minimise(case.function, start, **given)
        if dtype is torch.float64 and is_near(one, alone):
            assert_same(one, alone)
            continue
        assert one.status is alone.status and torch.allclose(one.x, alone.x, rtol=1e-2, atol=1e-2)
        if not is_near(one, alone):
            least, most = steps_from_beside(case, start, **given)
            assert 0.9 * least - 2 <= one.nit <= 1.1 * most + 2


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_of_many_is_one(case):
    start, given = torch.tensor(case.starts[:1], dtype=torch.float64), options(case, max_steps=20)

    many = gradopt.minimise(case.function, starts=start, **given)
    alone = gradopt.minimise(case.function, start[0], **given)

    assert_same(many[0], alone)
    assert many.nfev[0] == alone.nfev and many.nit[0] == alone.nit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_order_of_starts_changes_nothing(case):
    starts, given = torch.tensor(case.starts, dtype=torch.float64), options(case, max_steps=60)
    order = torch.randperm(len(starts), generator=torch.Generator().manual_seed(0))

    one, other = (gradopt.minimise(case.function, starts=points, **given) for points in (starts, starts[order]))

    assert one.verdicts.codes[order].tolist() == other.verdicts.codes.tolist()
    assert torch.allclose(one.x[order], other.x, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12, 20, 33])
def test_a_budget_of_evaluations_is_kept_by_each_start(limit):
    case = CASES[0]
    starts, given = torch.tensor(case.starts, dtype=torch.float64), options(case, max_evaluations=limit)

    many = gradopt.minimise(case.function, starts=starts, **given)

    for start, one in zip(starts, many, strict=True):
        alone = gradopt.minimise(case.function, start, **given)
        assert (one.status, one.nfev, one.nit) == (alone.status, alone.nfev, alone.nit)
        assert one.nfev <= limit and torch.allclose(one.x, alone.x, rtol=1e-8)


@pytest.mark.parametrize("steps", [0, 1, 5, 17])
def test_a_budget_of_steps_is_one_of_each_start(steps):
    case = CASES[0]
    starts, given = torch.tensor(case.starts, dtype=torch.float64), options(case, max_steps=steps)

    many = gradopt.minimise(case.function, starts=starts, **given)

    for start, one in zip(starts, many, strict=True):
        alone = gradopt.minimise(case.function, start, **given)
        assert (one.status, one.nit) == (alone.status, alone.nit) and one.nfev == alone.nfev


def assembled(kind=FunctionObjective, **stop):
    starts = {"x": torch.tensor([*drawn(7, 2, -3, 3), (1.0, 1.0)], dtype=torch.float64)}
    target = kind(f.rosenbrock, torch.zeros(2, dtype=torch.float64))
    return assemble_starts(target, starts, "lbfgs", stop=Stop(**stop))


def walk(assembly, verdicts, until=10_000):
    """The points of the starts that are live, by step."""
    points = {}
    for block in iterate(assembly.engine, assembly.criteria, max_rows=1, verdicts=verdicts):
        live = block.starts.live
        points[block.last_step] = block.starts.index[live], assembly.oracle.last.point[live].clone()
        if block.last_step + 1 == until:
            break
    return points


def test_what_interrupts_a_search_leaves_every_start_at_its_last_point():
    class Interrupting(FunctionObjective):
        """Asks for an end when some starts, but not all, make another trial."""

        def losses(self, parameters):
            for run in running:
                if len(parameters["x"]) < 7 and run.engine.step > 3 and run.interrupt.signal is None:
                    run.interrupt.request(signal.SIGINT)
            return super().losses(parameters)

    running = []
    assembly = assembled(Interrupting)
    running.append(assembly)
    verdicts, seen = Verdicts(assembly.criteria, 8), {}
    for block in iterate(assembly.engine, assembly.criteria, max_rows=1, verdicts=verdicts):
        seen[block.last_step] = dict(zip(block.starts.index.tolist(), assembly.oracle.last.point.clone(), strict=True))

    ended, waited = assembly.engine.ended(), verdicts.steps[:7] < max(seen)

    assert [status.value for status in map(verdicts.status, range(8))] == ["interrupted"] * 7 + ["converged"]
    assert bool(waited.any()) and not bool(waited.all())
    for start in range(7):
        assert torch.equal(ended.point[start], seen[int(verdicts.steps[start])][start])


def test_a_saved_run_goes_on_to_the_last_bit(tmp_path):
    whole = assembled()
    judged = Verdicts(whole.criteria, 8)
    reference = walk(whole, judged)
    for cut in (2, 9, 16, 23):  # no start ends at the step before
        first, second = assembled(), assembled()
        verdicts = Verdicts(first.criteria, 8)
        walk(first, verdicts, until=cut)
        first.engine.update()
        parts = [first.engine, verdicts, *first.criteria]
        torch.save([part.state_dict() for part in parts], tmp_path / "state.pt")
        verdicts = Verdicts(second.criteria, 8)
        states = torch.load(tmp_path / "state.pt", weights_only=False)
        for part, state in zip([second.engine, verdicts, *second.criteria], states, strict=True):
            part.load_state_dict(state)
        rest = walk(second, verdicts)
        assert min(rest) == cut and max(rest) == max(reference)
        for step, (index, point) in rest.items():
            assert torch.equal(index, reference[step][0]) and torch.equal(point, reference[step][1])
        assert list(verdicts) == list(judged) and torch.equal(verdicts.steps, judged.steps)
        assert torch.equal(second.engine.ended().counts, whole.engine.ended().counts)


def test_the_state_that_was_saved_does_not_follow_the_run():
    assembly = assembled()
    blocks = iterate(assembly.engine, assembly.criteria, max_rows=1, verdicts=Verdicts(assembly.criteria, 8))
    for _ in range(5):
        next(blocks)
    state = assembly.engine.state_dict()
    before = [tensor.clone() for tensor in (*state["optimiser"]["memory"]["tensors"], state["oracle"]["best_loss"])]

    for _ in range(5):
        next(blocks)

    after = [*state["optimiser"]["memory"]["tensors"], state["oracle"]["best_loss"]]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_start_without_a_number_harms_no_other():
    starts = torch.tensor([[2.0], [-1.0], [0.5]], dtype=torch.float64)

    with_nan = gradopt.minimise(log_well, starts=starts, optimiser="lbfgs")
    without = gradopt.minimise(log_well, starts=starts[[0, 2]], optimiser="lbfgs")

    assert with_nan.status == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    assert torch.equal(with_nan.x[[0, 2]], without.x) and with_nan.nfev[[0, 2]].tolist() == without.nfev.tolist()


def test_a_wrong_gradient_is_named():
    class Wrong(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return ((x - 1) ** 2).sum()

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, upstream):
            return -upstream * 2 * (ctx.saved_tensors[0] - 1)

    starts = torch.tensor([[0.0], [3.0]], dtype=torch.float64)

    results = gradopt.minimise(Wrong.apply, starts=starts)

    assert all(status is Status.STALLED for status in results.status)
    assert "gradient" in results.best_start.message


def test_it_is_the_default():
    starts = torch.tensor([[-1.2, 1.0], [0.5, 0.5]], dtype=torch.float64)

    default, named = (
        gradopt.minimise(f.rosenbrock, starts=starts),
        gradopt.minimise(f.rosenbrock, starts=starts, optimiser="lbfgs"),
    )

    assert default.nfev.tolist() == named.nfev.tolist() and bool((default.nfev > default.nit + 1).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_a_tail_is_followed_as_far_as_alone_though_inverses_of_curvatures_overflow(dtype):
    def tail(x):
        return torch.exp(-x).sum()

    starts = torch.tensor([[-3.0, 1.0], [0.5, 0.2]], dtype=dtype)

    results = gradopt.minimise(tail, starts=starts, optimiser="lbfgs")

    for start, nit in zip(starts, results.nit.tolist(), strict=True):
        single = gradopt.minimise(tail, start, optimiser="lbfgs")
        assert abs(nit - single.nit) <= max(2, 0.01 * single.nit)
