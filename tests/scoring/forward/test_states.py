"""The store of states: where what exceeds its budgets goes."""

import errno
from types import SimpleNamespace

import torch

from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import LayerPoint


def test_states_go_to_their_device_then_the_host_then_a_file():
    states = StateStore(budget=80, host=160)
    for i, name in enumerate("abcd"):
        states.put(name, LayerPoint(1), [torch.full((20,), float(i))])
    assert (states.held, states.hosted, states.filed) == (80, 160, 80)
    for i, name in enumerate("abcd"):
        assert torch.equal(states.get(name, LayerPoint(1))[0], torch.full((20,), float(i)))
    states.clear()
    assert (states.held, states.hosted, states.filed) == (0, 0, 0)


def test_states_leave_most_of_the_disk_free(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=4_000))
    states = StateStore(0)
    states.put("a", LayerPoint(1), [torch.ones(200)])
    states.put("b", LayerPoint(1), [torch.ones(200)])
    assert ("a", LayerPoint(1)) in states
    assert ("b", LayerPoint(1)) not in states
    assert torch.equal(states.get("a", LayerPoint(1))[0], torch.ones(200))


def test_a_disk_that_is_full_takes_no_half_state(monkeypatch):
    states, written = StateStore(0), []
    states.put("a", LayerPoint(1), [torch.ones(20)])

    def full(tensor):
        written.append(tensor)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.Tensor, "cpu", full)
    states.put("b", LayerPoint(1), [torch.ones(20)])
    monkeypatch.undo()
    assert written
    assert ("b", LayerPoint(1)) not in states
    states.put("c", LayerPoint(1), [torch.full((20,), 3.0)])
    assert torch.equal(states.get("a", LayerPoint(1))[0], torch.ones(20))
    assert torch.equal(states.get("c", LayerPoint(1))[0], torch.full((20,), 3.0))
