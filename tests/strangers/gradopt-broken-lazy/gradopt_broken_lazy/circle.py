"""A module that says its class is in another, which says that it is in this one."""

from gradopt_broken_lazy.round_again import Problem

__all__ = ["Problem"]
