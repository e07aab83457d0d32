"""A trained linear model beside the theory: exact where the theorem is, refused where it is not."""

import copy
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from eckart.errors import EckartError, EditError, ModelError, TaskError
from eckart.paper.functions.cells import (
    MEASURED,
    SAID,
    adjusted,
    clip_cells,
    correlations,
)
from eckart.paper.functions.classes import Prompts
from eckart.paper.functions.models import (
    InContextModel,
    LinearAttention,
    LinearAttentionModel,
    tokens,
)
from eckart.paper.functions.readings import (
    NOISE,
    Cases,
    Noise,
    draw_cases,
    follow,
    load_linear,
    read,
    residual,
)
from eckart.paper.functions.training import Training, kept_models, train
from eckart.paper.functions.views import draw_trajectory
from eckart.records import Edit
from eckart.weights.edits import clip


def untrained(layers: int = 3, d: int = 3, std: float = 0.3) -> LinearAttentionModel:
    torch.manual_seed(0)
    model = LinearAttentionModel.of_size(d, 7, layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(std / 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A briefly trained model's folder."""
    out = tmp_path_factory.mktemp("training") / "run"
    training = Training(
        model="linear", dimension=3, layers=2, steps=150, batch=64, rate=1e-2, warmup=20
    )
    losses = []
    train(training, out, device="cpu", watch=lambda step, loss: losses.append(loss))
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20]), "it has learnt something"
    return out


@pytest.fixture(scope="module")
def trained(folder) -> LinearAttentionModel:
    return load_linear(folder)


@pytest.fixture(scope="module")
def cases():
    return draw_cases("linear", 3, examples=6, prompts=20, seed=1)


def test_a_batch_that_overflows_is_passed_over(tmp_path, monkeypatch):
    """One prompt of the second batch overflows float32: training goes on as if the batch had not
    been."""
    drawn = Training.prompts

    def overflowing(self, step):
        prompts = drawn(self, step)
        prompts.x[0] *= 1e30 if step == 1 else 1
        return prompts

    monkeypatch.setattr(Training, "prompts", overflowing)
    training = Training(model="linear", dimension=3, layers=2, steps=4, batch=4, warmup=1)
    train(training, tmp_path / "run", checkpoints=[0, 1, 2], device="cpu")
    kept = {
        step: load_linear(path).state_dict() for step, path in kept_models(tmp_path / "run").items()
    }
    moved = [
        any(not torch.equal(kept[a][name], kept[b][name]) for name in kept[0])
        for a, b in ((0, 1), (1, 2))
    ]
    assert moved == [True, False]
    assert all(bool(matrix.isfinite().all()) for matrix in kept[4].values())
    assert any(not torch.equal(kept[2][name], kept[4][name]) for name in kept[0])


def test_theorem_1_is_exact_on_an_untrained_model(cases):
    assert residual(untrained(), cases) < 1e-10


def test_theorem_1_is_exact_on_a_trained_model(trained, cases):
    assert residual(trained, cases) < 1e-10


def test_the_residual_sees_a_model_that_is_not_eq_3(cases, monkeypatch):
    """Without the mask, the test token attends to itself, and nothing holds any more."""

    def unmasked(self, h):
        return h + self.q_proj(h) @ self.k_proj(h).mT @ self.v_proj(h)

    monkeypatch.setattr(LinearAttention, "forward", unmasked)
    assert residual(untrained(), cases) > 1e-3


def test_the_residual_sees_an_answer_that_is_not_the_last_row_of_w(cases, monkeypatch):
    """The blocks are right, and the model says something else."""
    answer = LinearAttentionModel._last
    monkeypatch.setattr(
        LinearAttentionModel, "_last", lambda self, h: answer(self, h) + 0.01 * h[:, 0, 0]
    )
    assert residual(untrained(), cases) > 1e-4


@pytest.mark.parametrize("token", [0, -1])
def test_the_residual_is_that_of_each_token(cases, monkeypatch, token):
    """A demonstration, or the asked token, a thousandth as long as the others and wrong by a
    thousandth of itself."""
    x, y = cases.prompts.x.clone(), cases.prompts.y.clone()
    x[:, [0, cases.examples]] *= 1e-3
    y[:, 0] *= 1e-3
    right = LinearAttention.forward

    def wrong(self, h):
        out = right(self, h)
        out[:, token] *= 1.001
        return out

    small = Cases(Prompts(x, y), cases.examples, cases.variance)
    assert residual(untrained(), small) < 1e-10
    monkeypatch.setattr(LinearAttention, "forward", wrong)
    assert residual(untrained(layers=1), small) == pytest.approx(1e-3, rel=1e-2)


def test_the_answers_are_the_models_own(trained, cases):
    """Every fresh point, asked of the model itself in float64 after the same examples."""
    reading, double = read(trained, cases), copy.deepcopy(trained).double()
    x, y, n = cases.prompts.x.double(), cases.prompts.y.double(), cases.examples
    errors = []
    for point in range(2 * n):
        asked = torch.cat([x[:, :n], x[:, point : point + 1]], dim=1)
        with torch.no_grad():
            answers = double(asked, y[:, : n + 1], [n])[:, 0]
        errors.append((answers - y[:, point]).square().numpy() / 3)
    losses = np.minimum(errors, 1.0)
    assert np.allclose(reading.tested, np.mean(errors[n:], axis=0), rtol=1e-9)
    assert np.allclose(reading.tested_loss, losses[n:].mean(axis=0), rtol=1e-9)
    assert np.allclose(reading.trained_loss, losses[:n].mean(axis=0), rtol=1e-9)
    assert reading.gap.mean == pytest.approx(losses[n:].mean() - losses[:n].mean())


def plain_terms(model, cases, shots: int, floor: float) -> tuple[list[float], list[float]]:
    """Return both halves of Theorem 2's terms, with d x d matrices and a sum over all choices of
    demonstrations."""
    firsts, dets = [], []
    hs = tokens(cases.prompts.x.double(), cases.prompts.y.double(), cases.examples)[:, :-1]
    pasts = [np.eye(hs.shape[2]) for _ in hs]
    for block in model.layers:
        a1, a2 = [], []
        w_q, w_k, w_v = (
            p.weight.detach().double().numpy() for p in (block.q_proj, block.k_proj, block.v_proj)
        )
        for index, h in enumerate(hs.numpy()):
            past, n = pasts[index], len(h)
            parts = [np.outer(w_v @ past @ t, w_k @ past @ t) @ w_q for t in h]
            gradients = np.array([n * (part @ past).ravel() for part in parts])
            means = [
                gradients[list(chosen)].mean(axis=0)
                for chosen in itertools.combinations(range(n), shots)
            ]
            noise = np.cov(np.array(means).T, bias=True) + floor * np.eye(gradients.shape[1])
            a1.append(np.sum(np.square(sum(parts))) * np.sum(np.square(past)) + np.trace(noise))
            a2.append(np.linalg.slogdet(noise)[1])
            pasts[index] = past + sum(parts) @ past
        d = noise.shape[0]
        firsts.append(d * math.log(np.mean(a1) / d))
        dets.append(np.mean(a2))
    return firsts, dets


def test_the_terms_are_those_of_plain_loops():
    model, few = untrained(layers=2, d=2), draw_cases("linear", 2, examples=4, prompts=3)
    reading = read(model, few, Noise(shots=2, floor=1e-3))
    firsts, dets = plain_terms(model, few, 2, 1e-3)
    assert reading.norm_terms == pytest.approx(firsts, rel=1e-9)
    assert reading.log_determinants == pytest.approx(dets, rel=1e-9)
    total = np.sum(firsts) - np.sum(dets)
    assert reading.bound == pytest.approx(math.sqrt(0.25 / 4 * total), rel=1e-9)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_clipping_moves_no_layer_before_the_clipped_one(cases, layer):
    """Remark 5, on a live model."""
    model = untrained()
    before = follow(model, cases)
    with clip(model, Edit(layer, "attn", 0.5)):
        after = follow(model, cases)
    assert np.array_equal(before.updates[:, :layer], after.updates[:, :layer])
    assert np.array_equal(before.steps[:, :layer], after.steps[:, :layer])
    assert all(np.abs(before.steps[:, t] - after.steps[:, t]).max() > 1e-6 for t in range(layer, 3))


def test_the_noise_has_the_covariance_of_the_bound():
    """One layer, one prompt, drawn many times: mean G_1 and covariance C_1 + floor I."""
    draws, one = 10_000, draw_cases("linear", 2, examples=4, prompts=2).prompts
    often = Cases(Prompts(one.x[:1].expand(draws, -1, -1), one.y[:1].expand(draws, -1)), 4, 2.0)
    model = untrained(layers=1, d=2)
    exact = follow(model, often)
    steps = follow(model, often, Noise(shots=2, floor=1e-3), seed=0).steps.reshape(draws, 9)
    values, inputs = exact.values[0, 0], exact.inputs[0, 0]
    gradients = np.array(
        [4 * np.outer(v, u).ravel() for v, u in zip(values.T, inputs.T, strict=True)]
    )
    means = [gradients[list(chosen)].mean(axis=0) for chosen in itertools.combinations(range(4), 2)]
    wanted = np.cov(np.array(means).T, bias=True) + 1e-3 * np.eye(9)
    scale = np.sqrt(np.diag(wanted))
    assert np.abs((steps.mean(axis=0) - exact.steps[0, 0].ravel()) / scale).max() < 5 / math.sqrt(
        draws
    )
    assert np.abs((np.cov(steps.T) - wanted) / np.outer(scale, scale)).max() < 7 / math.sqrt(draws)


def test_with_all_shots_and_a_small_floor_the_noisy_descent_is_the_exact_one(trained, cases):
    noise = Noise(shots=6, floor=1e-24)
    noisy = follow(trained, cases, noise, seed=0)
    assert np.allclose(noisy.weights, follow(trained, cases).weights, atol=1e-9)


def test_a_noisy_reading_is_the_same_for_the_same_seed(trained, cases):
    one, two, other = (read(trained, cases, NOISE, seed).to_json() for seed in (0, 0, 1))
    assert one == two != other


def test_cells_and_their_agreement(trained, cases):
    before = {name: p.clone() for name, p in trained.state_dict().items()}
    cells = clip_cells(trained, cases, rates=[0.5, 0.75], noise=NOISE)
    assert all(torch.equal(p, before[name]) for name, p in trained.state_dict().items())
    assert len(cells) == 2 * 4 * 2
    assert {cell.rank for cell in cells} == {1, 2}
    whole = read(trained, cases)
    with clip(trained, Edit(1, "k", 0.75)):
        clipped = read(trained, cases)
    (cell,) = (cell for cell in cells if cell.edit == Edit(1, "k", 0.75))
    assert cell.bound == clipped.bound - whole.bound
    assert cell.loss.mean == pytest.approx(clipped.loss.mean - whole.loss.mean)
    assert cell.gap.mean == pytest.approx(clipped.gap.mean - whole.gap.mean)
    halves = SAID["norm half"](cell) + SAID["log-determinant half"](cell)
    assert halves == pytest.approx(6 / 0.25 * (clipped.bound**2 - whole.bound**2), rel=1e-6)
    found = correlations(cells)
    assert set(found) == set(SAID)
    for name, ranks in found.items():
        assert set(ranks) == set(MEASURED)
        for what, rank in ranks.items():
            x, y = ([of[n](cell) for cell in cells] for of, n in ((SAID, name), (MEASURED, what)))
            assert rank == pytest.approx(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    still = correlations([replace(cell, after=cell.before) for cell in cells])
    assert {rank for ranks in still.values() for rank in ranks.values()} == {
        None
    }  # nothing has an order


def test_rates_that_leave_the_same_rank_are_one_cell(trained, cases):
    cells = clip_cells(trained, cases, rates=[0.0, 0.5, 0.75, 0.8])
    assert [cell.edit.rate for cell in cells if (cell.edit.layer, cell.edit.part) == (0, "q")] == [
        0.5,
        0.75,
    ]
    with pytest.raises(EditError, match="no rate above 0"):
        clip_cells(trained, cases, rates=[0.0])


def test_what_is_sure_is_adjusted_for_all_cells(trained, cases):
    """One cell whose interval just leaves 0 out is sure alone, and not among many."""
    (cell,) = clip_cells(trained, cases, rates=[0.5])[:1]

    def shifted(gain: float):
        noise = np.linspace(-0.05, 0.05, 20)
        losses = [
            replace(cell.before, tested_loss=0.3 + part) for part in (0 * noise, noise + gain)
        ]
        return replace(cell, before=losses[0], after=losses[1])

    just = next(
        found for found in map(shifted, np.linspace(0, 0.5, 200)) if found.loss.p_value < 0.04
    )
    others = [shifted(0.0)] * 2
    assert just.loss.interval[0] > 0
    assert adjusted([just])[0] < 0.05
    assert min(adjusted([just, *others])) > 0.05
    assert adjusted([just, *others])[0] == pytest.approx(3 * just.loss.p_value)
    low, high, *rest = adjusted([shifted(-0.3), shifted(0.3), *others])
    assert max(low, high) < 0.05 < min(rest)


def test_bad_input_is_one_line(folder, trained, cases, tmp_path):
    InContextModel.of_size(3, 7, 1, 8, 2).save_pretrained(tmp_path / "gpt2")
    wrong = [
        (lambda: load_linear(tmp_path / "gpt2"), ModelError, "of type 'gpt2'"),
        (lambda: load_linear("no-such-model"), ModelError, "no model 'no-such-model'"),
        (lambda: load_linear(tmp_path), ModelError, "holds no config.json"),
        (lambda: Noise(floor=0.0), TaskError, "floor 0: C_t is never of full rank"),
        (lambda: read(trained, cases, Noise(shots=7)), EckartError, "7 shots of 6 demonstrations"),
        (lambda: draw_cases("cubic", 3, 6, 20), TaskError, "no function class 'cubic'"),
        (lambda: draw_cases("linear", 3, 1, 20), TaskError, "1 examples and 20 prompts"),
        (
            lambda: read(trained, draw_cases("linear", 4, 6, 20)),
            ModelError,
            "3 coordinates, and these 4",
        ),
        (lambda: read(trained, draw_cases("linear", 3, 7, 20)), ModelError, "reads 6 examples and"),
        (lambda: clip_cells(trained, cases, rates=[1.0]), EditError, "clipping rate 1 is outside"),
    ]
    for call, kind, says in wrong:
        with pytest.raises(kind) as caught:
            call()
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_that_lacks_a_matrix_is_refused(trained, tmp_path):
    from safetensors.torch import load_file, save_file

    trained.save_pretrained(tmp_path / "short")
    path = tmp_path / "short" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("layers.1.v_proj.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 1 tensor\(s\) .*, such as layers\.1\.v_proj\.weight"
    ):
        load_linear(tmp_path / "short")


def test_the_figure_draws_every_cell(trained, cases):
    cells = clip_cells(trained, cases, rates=[0.5])
    whole = read(trained, cases)
    figure = draw_trajectory(whole, cells[0].after, cells, cells, "0:q:0.5")
    norms, loss, gap = figure.axes
    assert [len(line.get_xdata()) for line in norms.lines] == [2] * 6
    assert [line.get_linestyle() for line in norms.lines] == ["-"] * 3 + ["--"] * 3
    assert norms.lines[4].get_ydata().tolist() == cells[0].after.steps.tolist()
    assert [text.get_text() for text in norms.get_legend().texts] == ["|ΔW_t|", "|G_t|", "|W_t|"]
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in loss.lines if line.get_alpha()}
    assert drawn == {(cell.bound, cell.loss.mean) for cell in cells}
    assert gap.get_ylabel() == "change in the noisy descent's gap"
    assert norms.get_title() == "dashed: after 0:q:0.5"
    named = draw_trajectory(whole, None, cells, cells, of="seed 0")
    titles = [axes.get_title() for axes in named.axes]
    assert titles[0] == "seed 0; the trajectory"
    assert all(title.startswith("seed 0; ") for title in titles)
