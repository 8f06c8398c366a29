"""NIST's regression problems: certified parameters and standard errors are reproduced, from both starts."""

import pytest
import torch
from gradopt_problems import nist
from gradopt_problems.names import FAMILIES

import gradopt

NAMES = FAMILIES["nist"]["gradopt_problems.nist"].split()


def digits(found, certified):
    """Correct significant digits, at most 11: what is certified."""
    error = ((found - certified) / certified).abs().max().item()
    return 11.0 if error == 0 else min(11.0, -torch.log10(torch.tensor(error)).item())


def test_there_are_all_27():
    assert len(NAMES) == 27


@pytest.mark.parametrize("name", NAMES)
def test_the_certified_parameters_have_the_certified_residuals(name):
    problem = getattr(nist, name)()
    with torch.no_grad():
        problem.x.copy_(torch.tensor(problem.CERTIFIED))

    assert 2 * problem().item() == pytest.approx(problem.RSS, rel=1e-7, abs=1e-20)


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_six_digits_of_every_parameter_from_either_start(name, start):
    problem = getattr(nist, name)(start=start)

    result = gradopt.least_squares(problem, stop=gradopt.Stop(max_evaluations=2000))

    assert digits(result.x, torch.tensor(problem.CERTIFIED)) >= 6, result
    assert result.success, result
    if name != "Lanczos1":  # whose residuals are rounding
        torch.testing.assert_close(result.standard_errors, torch.tensor(problem.STANDARD_ERRORS), rtol=1e-4, atol=0)
