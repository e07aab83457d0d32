"""The two decoders: what a prediction sees, what a token holds, and Eq. (3)."""

import pytest
import torch

from eckart.paper.functions.models import InContextModel, LinearAttentionModel, tokens

D, POINTS = 3, 6


def build(name: str) -> InContextModel | LinearAttentionModel:
    torch.manual_seed(0)
    if name == "linear":
        return LinearAttentionModel.of_size(D, POINTS, layers=2).eval()
    return InContextModel.of_size(D, POINTS, layers=2, width=16, heads=2, layout=name).eval()


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(1)
    return torch.randn(4, POINTS, D, generator=made), torch.randn(4, POINTS, generator=made)


@pytest.mark.parametrize("name", ["paired", "separate", "linear"])
def test_a_value_is_not_seen_where_it_or_one_before_it_is_predicted(name):
    model, (x, y) = build(name), prompts()
    before = model(x, y, range(POINTS))
    for changed in range(POINTS):
        other = y.clone()
        other[:, changed] += 5
        after = model(x, other, range(POINTS))
        assert torch.equal(before[:, : changed + 1], after[:, : changed + 1])
        assert (before[:, changed + 1 :] != after[:, changed + 1 :]).all()


@pytest.mark.parametrize("name", ["paired", "separate", "linear"])
def test_a_later_point_is_not_seen(name):
    model, (x, y) = build(name), prompts()
    other = x.clone()
    other[:, 4:] += 5
    counts = [0, 2, 3]
    assert torch.equal(model(x, y, counts), model(other, y, counts))


@pytest.mark.parametrize("name", ["paired", "separate", "linear"])
def test_predictions_do_not_depend_on_which_others_are_asked_for(name):
    model, (x, y) = build(name), prompts()
    everything = model(x, y, range(POINTS))
    for count in range(POINTS):
        assert torch.allclose(model(x, y, [count])[:, 0], everything[:, count], atol=1e-6)
    assert torch.allclose(model(x, y, [5, 1]), everything[:, [5, 1]], atol=1e-6)


@pytest.mark.parametrize("layout", ["paired", "separate"])
def test_what_a_token_holds(layout):
    model, (x, y), seen = build(layout), prompts(), []
    model.read_in.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    model(x, y, [2])
    assert seen[0].shape == (4, 5, D + 1)
    for i in range(2):
        asked, told = seen[0][:, 2 * i], seen[0][:, 2 * i + 1]
        assert torch.equal(asked, torch.cat([x[:, i], torch.zeros(4, 1)], dim=1))
        point = x[:, i] if layout == "paired" else torch.zeros(4, D)
        assert torch.equal(told, torch.cat([point, y[:, i, None]], dim=1))


def test_linear_attention_is_equation_3():
    model, (x, y) = build("linear"), prompts()
    with torch.no_grad():
        for prompt in range(4):
            h = tokens(x, y, 3)[prompt].T  # columns are tokens, as in the paper
            mask = torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0]))
            for block in model.layers:
                w_v, w_k, w_q = block.v_proj.weight, block.k_proj.weight, block.q_proj.weight
                h = h + w_v @ h @ mask @ (w_k @ h).T @ (w_q @ h)
            assert torch.isclose(h[-1, -1], model(x, y, [3])[prompt, 0], atol=1e-6)


def test_the_most_points_of_a_prompt_fit():
    for name in ("paired", "separate", "linear"):
        model, (x, y) = build(name), prompts()
        assert model.points == POINTS
        assert model(x, y, range(POINTS)).shape == (4, POINTS)
