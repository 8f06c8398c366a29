"""Where TensorBoard finds the tab.

An error while this module is imported would end TensorBoard, one in `load` only costs the tab: so nothing but
TensorBoard's own contract is imported before.
"""

from typing import Any

from tensorboard.plugins import base_plugin


class TabLoader(base_plugin.TBLoader):
    """Loads the tab; TensorBoard logs what it raises, and goes on without it."""

    def load(self, context: base_plugin.TBContext) -> Any:
        """The tab of the log directory that TensorBoard was started with."""
        from gradopt.board_tab.tab import Tab  # here: see above

        return Tab(context)
