"""The table of rules, filled. What has no rule is decomposed by torch, or not printed."""

from gradopt.engines.native import elementwise, reductions, views
from gradopt.engines.native.calls import RULES

FILES = elementwise, views, reductions
"""Each registers its rules where it is imported."""

__all__ = ["FILES", "RULES"]
