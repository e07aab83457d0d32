"""The theory's quantities on a real model: recorded from its own attention, on the demonstrations
of real prompts."""

from eckart.paper.probe.prober import Prober, probe
from eckart.paper.probe.reading import Comparison, LayerProbe, Probe

__all__ = ["Comparison", "LayerProbe", "Probe", "Prober", "probe"]
