"""The options of the verbs that probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eckart.cli import options as o
from eckart.cli.scoring import Shown, with_options

if TYPE_CHECKING:
    from eckart.paper.probe import Prober
    from eckart.tasks import Task


@dataclass(frozen=True)
class Probing(Shown):
    """What is probed and how: in float32 unless said otherwise, so that a recomputed output is
    exact."""

    floor: o.Floor = 1e-3
    dtype: o.Dtype = "float32"
    device: o.Device = "auto"
    device_map: o.DeviceMap = None
    trust_remote_code: o.RemoteCode = False

    def prober(self, model: str, task: Task, split: str, prompts: int) -> Prober:
        """Load the model, and return what reads the theory's quantities off it."""
        from eckart.paper.probe import Prober

        return Prober(
            o.read_model(model, self.dtype, self.device, self.trust_remote_code, self.device_map),
            task,
            prompts=prompts,
            split=split,
            floor=self.floor,
            truncate_demonstrations=self.truncate_demonstrations,
            drop_long_rows=self.drop_long_rows,
        )


probing_options = with_options(Probing)
