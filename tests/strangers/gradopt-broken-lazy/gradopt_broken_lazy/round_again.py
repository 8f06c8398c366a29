"""See circle."""

from gradopt_broken_lazy.circle import Problem

__all__ = ["Problem"]
