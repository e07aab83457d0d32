"""Writing a clipped model out."""

from eckart.checkpoints.dense import Saved, export

__all__ = ["Saved", "export"]
