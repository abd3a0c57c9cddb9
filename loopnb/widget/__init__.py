"""The live widget: a model in the kernel and its views in the browser."""

from loopnb.widget.model import LoopWidget

__all__ = ["LoopWidget"]
