"""Training: it goes on where it was stopped, bit for bit, refuses what is not its own, and
learns."""

import signal
from pathlib import Path

import pytest
import torch
from drivers import driven, needs_fork
from safetensors.torch import save_file

from eckart.errors import ModelError, NotANumberError, RunError, TaskError
from eckart.paper.functions import training as module
from eckart.paper.functions.training import (
    Training,
    doubling_steps,
    kept_models,
    read_losses,
    train,
)

TINY = {"dimension": 2, "layers": 1, "width": 8, "heads": 2, "steps": 30, "batch": 4, "warmup": 5}


def files(folder: Path) -> dict[str, bytes]:
    """Return a training's state and models; drafts that a kill left behind are neither."""
    found = [folder / "state.safetensors", *folder.glob("steps/[0-9]*/*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """A training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    train(Training(**TINY), folder, checkpoints=[0, 10, 20], save_every=4, device="cpu")
    return folder


def go_on(folder: Path) -> None:
    train(Training(**TINY), folder, checkpoints=[0, 10, 20], save_every=4, device="cpu")


def test_what_a_folder_holds(calm):
    assert list(kept_models(calm)) == [0, 10, 20, 30]
    assert len(read_losses(calm)) == 30
    assert {name.split("/")[0] for name in files(calm)} == {"state.safetensors", "steps"}


def test_an_interrupted_training_goes_on_bit_for_bit(calm, tmp_path):
    def stop(step: int, loss: float) -> None:
        if step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            Training(**TINY),
            tmp_path,
            checkpoints=[0, 10, 20],
            save_every=4,
            device="cpu",
            watch=stop,
        )
    assert len(read_losses(tmp_path)) == 14
    go_on(tmp_path)
    assert files(tmp_path) == files(calm)


def test_an_interrupt_in_the_middle_of_a_step_waits_for_its_end(calm, tmp_path, monkeypatch):
    step, taken = module.AdamW.step, []

    def interrupted(self, *given):
        taken.append(len(taken))
        if len(taken) == 7:
            signal.raise_signal(signal.SIGINT)
        return step(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(module.AdamW, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            go_on(tmp_path)
    assert len(read_losses(tmp_path)) == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    go_on(tmp_path)
    assert files(tmp_path) == files(calm)


def test_a_step_that_fails_half_way_is_not_kept(calm, tmp_path, monkeypatch):
    step, taken = module.AdamW.step, []

    def failing(self, *given):
        taken.append(step(self, *given))
        if len(taken) == 7:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(module.AdamW, "step", failing)
        with pytest.raises(MemoryError):
            go_on(tmp_path)
    assert len(read_losses(tmp_path)) == 4
    go_on(tmp_path)
    assert files(tmp_path) == files(calm)


@needs_fork
def test_a_training_that_is_killed_ends_where_an_undisturbed_one_ends(tmp_path):
    for name, history in driven("training_kills.py", tmp_path).items():
        assert history == sorted(history), "something that was kept was lost"
        assert any(0 < steps < 160 for steps in history), f"no {name} fell in the middle"
        assert history[-1] == 160
        assert files(tmp_path / name) == files(tmp_path / "calm")


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"rate": 2e-3}, {"steps": 40}, {"function": "decision-tree"}]
)
def test_another_training_is_refused(calm, other):
    before = files(calm)
    with pytest.raises(RunError, match=f"made with other settings .{next(iter(other))} "):
        train(Training(**{**TINY, **other}), calm, device="cpu")
    assert files(calm) == before


def copied(calm: Path, folder: Path) -> Path:
    go_on(folder)
    assert files(folder) == files(calm)
    return folder / "state.safetensors"


@pytest.mark.parametrize("damage", ["cut", "emptied", "another's"])
def test_a_damaged_state_is_refused_and_left(calm, tmp_path, damage):
    state = copied(calm, tmp_path)
    if damage == "another's":
        save_file(
            {"step": torch.tensor(3), "losses": torch.zeros(30), "model.x": torch.zeros(2)}, state
        )
    else:
        state.write_bytes(state.read_bytes()[: 0 if damage == "emptied" else 1000])
    content = state.read_bytes()
    with pytest.raises(RunError, match=r"state.safetensors' is damaged or cannot be read"):
        go_on(tmp_path)
    assert state.read_bytes() == content


def test_a_loss_that_is_not_a_number_ends_it_in_one_line(tmp_path):
    with pytest.raises(
        NotANumberError, match="training came apart; begin again in another folder, with a smaller"
    ):
        train(Training(model="linear", layers=6, rate=1e6, warmup=1, steps=30, batch=4), tmp_path)


@pytest.mark.parametrize("step", [-1, 31])
def test_a_checkpoint_that_is_no_step_is_refused_before_anything(tmp_path, step):
    with pytest.raises(TaskError, match=f"no checkpoint after step {step}: training has 30 steps"):
        train(Training(**TINY), tmp_path / "run", checkpoints=[step])
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_refused_before_anything(tmp_path):
    with pytest.raises(ModelError, match="not usable here"):
        train(Training(**TINY), tmp_path / "run", device="cuda:99")
    assert not (tmp_path / "run").exists()


def test_the_curriculum_lets_in_a_coordinate_at_a_time():
    training = Training(dimension=8, curriculum=100, batch=3)
    assert [training.stage(step) for step in (0, 99, 100, 500, 600, 9_000)] == [
        (2, 5),
        (2, 5),
        (3, 7),
        (7, 15),
        (8, 17),
        (8, 17),
    ]
    prompts = training.prompts(100)
    assert prompts.x.shape == (3, 7, 8)
    assert (prompts.x[..., 3:] == 0).all()
    assert (prompts.x[..., :3] != 0).all()
    assert Training(dimension=8).stage(0) == (8, 17)


def test_the_learning_rate_rises_and_falls():
    training = Training(rate=1.0, warmup=10, steps=1000)
    rates = [training.learning_rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[500] == pytest.approx(0.5)
    assert rates[-1] < 1e-5


def test_prompts_and_first_weights_follow_from_the_seed():
    first, same, other = (Training(**TINY, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.prompts(3).x, same.prompts(3).x)
    assert not torch.equal(first.prompts(3).x, other.prompts(3).x)
    assert not torch.equal(first.prompts(3).x, first.prompts(4).x)
    weights = [next(training.new_model().parameters()) for training in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    "checked",
    [
        {"model": "linear", "layers": 1, "steps": 200, "rate": 1e-2},
        {"layers": 2, "width": 32, "steps": 150, "rate": 3e-3},
    ],
)
def test_the_loss_falls(tmp_path, checked):
    train(Training(dimension=2, batch=64, warmup=20, **checked), tmp_path, device="cpu")
    losses = read_losses(tmp_path)
    assert 0.85 < losses[:20].mean() < 1.15
    assert losses[-20:].mean() < (0.5 if "model" in checked else 0.9)


def test_models_are_kept_after_doubling_numbers_of_steps():
    assert doubling_steps(64) == (1, 2, 4, 8, 16, 32, 64)
    assert doubling_steps(3) == (1, 3)


@pytest.mark.parametrize("unused", [{"width": 128}, {"heads": 2}, {"layout": "separate"}])
def test_a_linear_model_has_no_settings_of_gpt2(unused):
    (name,) = unused
    with pytest.raises(TaskError, match=f"{name} .* is of model gpt2; a linear model has none"):
        Training(model="linear", **unused)


def test_a_curriculum_that_never_ends_is_refused():
    Training(dimension=8, curriculum=100, steps=601)
    with pytest.raises(
        TaskError, match="the last of 8 coordinates at step 600, and there are 600 steps"
    ):
        Training(dimension=8, curriculum=100, steps=600)


def test_the_loss_of_a_stage_is_over_the_variance_of_its_coordinates(tmp_path):
    """An untrained model answers about 0: the loss is about 1 from the first coordinate on."""
    train(
        Training(dimension=8, curriculum=2, steps=20, layers=1, batch=400, rate=1e-9),
        tmp_path,
        device="cpu",
    )
    assert (read_losses(tmp_path) - 1).abs().max() < 0.35
