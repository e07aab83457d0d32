"""Truncation is Eckart and Young's optimum, and the spectrum is right where it is hard to get
right."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from matrices import (
    DTYPES,
    bits,
    deterministic,
    frobenius,
    matrices,
    numpy_values,
    rates,
    with_spectrum,
)

from eckart.algorithm1 import rank_at
from eckart.errors import EditError, ModelError
from eckart.weights.linalg import Factor, factored_size
from eckart.weights.spectrum import spectrum_of

EPS = torch.finfo(torch.float64).eps


class TestRankRule:
    @pytest.mark.parametrize(
        ("rate", "size", "rank"),
        [
            (0.9, 10, 1),
            (0.95, 4096, 204),
            (0.995, 64, 1),
            (0.99, 100, 1),
            (0.7, 10, 3),
            (0.1, 10, 9),
            (0.75, 4096, 1024),
            (0.5, 5, 2),
            (0.999999, 4096, 1),
            (1e-3, 10, 9),
            (0.0, 1, 1),
            (0.99, 1, 1),
            (0.0, 4096, 4096),
        ],
    )
    def test_at_the_edges_of_rounding(self, rate, size, rank):
        assert rank_at(rate, (size, 3 * size)) == rank_at(rate, (3 * size, size)) == rank

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 10, 64, 100, 768, 4096])
    def test_inverts_the_papers_definition_of_the_rate(self, size):
        for r in range(1, size + 1):
            assert rank_at(1 - r / size, (size, size)) == r

    @deterministic
    @given(rates, rates, st.integers(1, 20000))
    def test_is_between_one_and_full_and_falls_as_the_rate_rises(self, a, b, size):
        low, high = sorted((a, b))
        assert 1 <= rank_at(high, (size, size)) <= rank_at(low, (size, size)) <= size

    @pytest.mark.parametrize("rate", [1.0, -0.1, 95, math.nan, math.inf])
    def test_refuses_what_is_no_rate(self, rate):
        with pytest.raises(EditError, match=r"outside \[0, 1\)"):
            rank_at(rate, (4, 4))


class TestEckartYoung:
    @deterministic
    @given(matrices(), rates)
    def test_the_error_is_exactly_the_tail_that_was_cut(self, matrix, rate):
        factor = Factor.of(matrix)
        error = matrix - factor.truncate(rate)
        tail = numpy_values(matrix)[factor.rank(rate) :]
        slack = 1e-12 * (1 + frobenius(matrix))
        assert frobenius(error) == pytest.approx(np.linalg.norm(tail), abs=slack)
        assert numpy_values(error)[0] == pytest.approx(tail[0] if len(tail) else 0, abs=slack)

    @deterministic
    @given(matrices(), rates, st.integers(0, 2**32 - 1))
    def test_no_competitor_of_the_same_rank_is_closer(self, matrix, rate, seed):
        factor = Factor.of(matrix)
        r, best = factor.rank(rate), factor.truncate(rate)
        random = np.random.default_rng(seed)
        basis = torch.from_numpy(np.linalg.qr(random.standard_normal((matrix.shape[0], r)))[0])
        leading = torch.from_numpy(np.linalg.svd(matrix.numpy(), full_matrices=False)[0][:, :r])
        nudged = leading + 1e-2 * torch.from_numpy(random.standard_normal((matrix.shape[0], r)))
        nearby = torch.linalg.qr(nudged).Q
        slack = 1e-12 * (1 + frobenius(matrix))
        for columns in (basis, nearby):
            competitor = columns @ (columns.T @ matrix)  # the best one with these columns
            assert frobenius(matrix - best) <= frobenius(matrix - competitor) + slack
            assert numpy_values(matrix - best)[0] <= numpy_values(matrix - competitor)[0] + slack

    @deterministic
    @given(matrices(), rates)
    def test_has_the_rank_it_says_and_numpys_leading_values(self, matrix, rate):
        factor = Factor.of(matrix)
        r = factor.rank(rate)
        slack = 1e-12 * (1 + frobenius(matrix))
        kept = numpy_values(factor.truncate(rate))
        np.testing.assert_allclose(kept[:r], numpy_values(matrix)[:r], atol=slack)
        np.testing.assert_allclose(kept[r:], 0, atol=slack)

    @deterministic
    @given(matrices(), rates, rates)
    def test_truncating_twice_is_truncating_at_the_larger_rate(self, matrix, a, b):
        once = Factor.of(matrix)
        spectrum = np.append(numpy_values(matrix), 0) / (frobenius(matrix) or 1)
        # Between two equal values other than 0 the optimum is not unique, and the two may cut
        # differently.
        cuts = [spectrum[[r - 1, r]] for r in (once.rank(a), once.rank(b))]
        assume(all(above < 1e-12 or above - below > 1e-6 for above, below in cuts))
        twice = Factor.of(once.truncate(a)).truncate(b)
        slack = 1e-9 * (1 + frobenius(matrix))
        torch.testing.assert_close(twice, once.truncate(max(a, b)), atol=slack, rtol=0)

    @deterministic
    @given(matrices(), rates)
    def test_truncating_again_at_the_same_rate_changes_nothing(self, matrix, rate):
        truncated = Factor.of(matrix).truncate(rate)
        slack = 1e-12 * (1 + frobenius(matrix))
        torch.testing.assert_close(
            Factor.of(truncated).truncate(rate), truncated, atol=slack, rtol=0
        )


SPECTRA = {
    "random": None,
    "ill-conditioned": np.logspace(0, -8, 24),
    "cut off": np.r_[np.ones(12), np.full(12, 1e-8)],
    "repeated": np.repeat([3.0, 2.0, 1.0, 0.5], 6),
    "rank-deficient": np.r_[np.linspace(2, 1, 10), np.zeros(14)],
    "zero": np.zeros(24),
}


def svd_truncation(matrix: torch.Tensor, r: int) -> torch.Tensor:
    """The slow twin, in float64."""
    u, s, vt = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return torch.from_numpy((u[:, :r] * s[:r]) @ vt[:r])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(24, 24), (70, 24), (24, 70)])
@pytest.mark.parametrize("values", SPECTRA.values(), ids=SPECTRA)
class TestTruncationThroughTheGramMatrix:
    """As good as the SVD's at every rank, and the same entries wherever the spectrum has a gap to
    cut in."""

    def matrix(self, values, shape, dtype):
        if values is None:
            return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        return with_spectrum(values, shape).to(dtype)

    def test_is_as_close_as_the_stated_bound(self, values, shape, dtype):
        matrix = self.matrix(values, shape, dtype)
        factor, s = Factor.of(matrix), numpy_values(matrix)
        for r in range(1, 24):
            error = frobenius(matrix.double() - factor._projected(r))
            excess = error**2 - float((s[r:] ** 2).sum())
            assert excess <= 2 * r * 24 * EPS * s[0] ** 2
            # What is stored is no worse than the SVD's, both rounded, by more than the rounding of
            # the two.
            stored = frobenius(matrix - factor.truncate(1 - r / 24))
            twin = frobenius(matrix - svd_truncation(matrix, r).to(dtype))
            assert stored <= twin + 0.5 * torch.finfo(dtype).eps * frobenius(matrix)

    def test_has_the_svds_entries_where_there_is_a_gap(self, values, shape, dtype):
        matrix = self.matrix(values, shape, dtype)
        factor, s = Factor.of(matrix), numpy_values(matrix)
        for r in range(1, 24):
            if s[r - 1] ** 2 - s[r] ** 2 > 1e-6 * s[0] ** 2:
                ours, twin = factor._projected(r), svd_truncation(matrix, r)
                torch.testing.assert_close(ours, twin, atol=1e-9 * s[0], rtol=0)
                # 1e-9 may fall on either side of a rounding boundary: at most one unit in the last
                # place.
                step = torch.finfo(dtype).eps * twin.abs().clamp_min(1e-3 * s[0])
                assert ((factor.truncate(1 - r / 24).double() - twin).abs() <= step).all()


class TestFactor:
    @deterministic
    @given(matrices(DTYPES))
    def test_the_vectors_are_orthonormal_and_turn_the_matrix_into_its_values(self, matrix):
        factor = Factor.of(matrix)
        assert factor.s.dtype == factor.v.dtype == torch.float64
        eye = torch.eye(len(factor.s), dtype=torch.float64)
        torch.testing.assert_close(factor.v.T @ factor.v, eye, atol=1e-12, rtol=0)
        tall = matrix.double() if matrix.shape[0] >= matrix.shape[1] else matrix.double().T
        size = frobenius(matrix)
        turned = (tall @ factor.v).norm(dim=0)
        torch.testing.assert_close(
            turned.square(), factor.s.square(), atol=1e-12 * (1e-30 + size**2), rtol=0
        )
        np.testing.assert_allclose(
            factor.s.square(), numpy_values(matrix) ** 2, atol=1e-12 * size**2
        )

    @deterministic
    @given(matrices(DTYPES), rates)
    def test_comes_back_in_the_dtype_and_shape_it_came_in(self, matrix, rate):
        truncated = Factor.of(matrix).truncate(rate)
        assert truncated.dtype == matrix.dtype
        assert truncated.shape == matrix.shape

    @pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn])
    def test_rate_zero_returns_the_very_bits(self, dtype):
        entries = torch.cat([torch.tensor([-0.0, 0.0, 1.0, -1.5]), torch.linspace(-2, 2, 31)]).to(
            dtype
        )
        if dtype.itemsize > 1:
            entries[4] = torch.finfo(dtype).smallest_normal / 4  # subnormal
            assert entries[4] > 0
        matrix = entries.reshape(5, 7)
        factor = Factor.of(matrix)
        restored = factor.truncate(0)
        assert torch.equal(bits(restored), bits(matrix))
        restored.fill_(1)
        assert torch.equal(bits(factor.truncate(0.0)), bits(matrix))

    @pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
    def test_a_vector_has_rank_one_at_every_rate(self, shape):
        matrix = torch.linspace(-1, 1, 9)[: math.prod(shape)].reshape(shape)
        assert torch.equal(Factor.of(matrix).truncate(0.9), matrix)

    def test_the_zero_matrix_stays_zero_and_loses_nothing(self):
        factor = Factor.of(torch.zeros(4, 6))
        assert torch.equal(factor.truncate(0.5), torch.zeros(4, 6))
        assert factor.kept_energy(0.5) == 1.0

    @deterministic
    @given(matrices(DTYPES), rates, rates)
    def test_kept_energy_is_the_share_of_the_squared_norm_and_falls(self, matrix, a, b):
        factor = Factor.of(matrix)
        low, high = sorted((a, b))
        assert (
            0 <= factor.kept_energy(high) <= factor.kept_energy(low) <= factor.kept_energy(0) == 1
        )
        squares = numpy_values(matrix) ** 2
        if squares.sum() > 0:
            expected = squares[: factor.rank(high)].sum() / squares.sum()
            assert factor.kept_energy(high) == pytest.approx(expected, abs=1e-12)

    def test_kept_energy_survives_squares_that_overflow(self):
        assert Factor.of(torch.diag(torch.tensor([4e30, 3e30]))).kept_energy(0.5) == pytest.approx(
            16 / 25
        )
        huge = torch.diag(torch.tensor([4e200, 3e200], dtype=torch.float64))
        assert Factor.of(huge).kept_energy(0.5) == pytest.approx(16 / 25)
        tiny = torch.diag(torch.tensor([4e-200, 3e-200], dtype=torch.float64))
        assert Factor.of(tiny).kept_energy(0.5) == pytest.approx(16 / 25)

    def test_two_factors_hold_fewer_numbers(self):
        factor = Factor.of(torch.ones(6, 10))
        assert factor.shape == (6, 10)
        assert factor.rank(0.5) == 3
        assert factored_size(0.5, factor.shape) == 3 * 6 + 3 * 10

    def test_keeps_its_own_copy_and_leaves_the_weight_as_it_is(self):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        before = weight.detach().clone()
        factor = Factor.of(weight)
        assert torch.equal(weight, before)
        with torch.no_grad():
            weight.zero_()
        assert torch.equal(factor.truncate(0), before)
        assert not factor.truncate(0.5).requires_grad

    def test_takes_a_transposed_view(self):
        matrix = torch.linspace(-1, 1, 12).reshape(3, 4)
        torch.testing.assert_close(
            Factor.of(matrix.T).truncate(0.5), Factor.of(matrix).truncate(0.5).T
        )

    def test_shapes_are_checked_in_the_tests(self):
        factor = Factor.of(torch.ones(3, 4))
        with pytest.raises(TypeCheckError):
            Factor(name="w", original=factor.original, s=factor.s[:2], v=factor.v)


class TestRefusals:
    @pytest.mark.parametrize("make", [Factor.of, spectrum_of])
    @pytest.mark.parametrize(
        ("matrix", "says"),
        [
            (
                torch.tensor([[1.0, math.nan], [math.inf, 2.0]]),
                "layer 3 q holds 2 NaN or infinite entries of 4",
            ),
            (torch.tensor([[7e4, 1.0]]).half(), "overflowed half-precision save"),
            (torch.tensor([[1.0, math.nan]]).to(torch.float8_e4m3fn), "holds 1 NaN"),
            (torch.zeros(3), r"layer 3 q has shape \(3,\)"),
            (torch.zeros(2, 3, 4), r"has shape \(2, 3, 4\)"),
            (torch.zeros(0, 4), r"has shape \(0, 4\)"),
            (
                torch.zeros(3, 3, dtype=torch.int8),
                r"torch.int8 entries, as in a quantised checkpoint",
            ),
            (torch.zeros(3, 3, device="meta"), "meta device and has no values"),
            (torch.full((3, 3), 1e308, dtype=torch.float64), "singular values overflow"),
        ],
    )
    def test_name_the_matrix_the_cause_and_the_remedy_in_one_line(self, make, matrix, says):
        with pytest.raises(ModelError, match=says) as caught:
            make(matrix, name="layer 3 q")
        assert str(caught.value).startswith("layer 3 q ")
        assert "\n" not in str(caught.value)
        assert "; " in str(caught.value)

    def test_a_truncation_that_its_dtype_cannot_hold(self):
        # The first entry of its best rank-1 matrix is 1.1 times the largest float16.
        matrix = 65504 * torch.tensor([[1.0, 1.0], [1.0, 0.5]])
        with pytest.raises(
            ModelError, match=r"at rank 1 has entries up to .* too large for torch.float16"
        ):
            Factor.of(matrix.half()).truncate(0.5)
        assert Factor.of(matrix.bfloat16()).truncate(0.5).isfinite().all()


class TestConvergence:
    def fail(self, *args, **options):
        raise torch.linalg.LinAlgError("linalg.svd: the algorithm failed to converge")

    @pytest.fixture
    def stubborn(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        for driver in ("eigh", "svd", "svdvals"):
            monkeypatch.setattr(torch.linalg, driver, self.fail)
        return monkeypatch

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_falls_back_to_another_driver(self, stubborn, dtype):
        matrix = with_spectrum(np.array([3.0, 2.0, 1.0]), (5, 3)).to(dtype)
        factor = Factor.of(matrix)
        np.testing.assert_allclose(factor.s, [3, 2, 1], rtol=1e-6)
        assert frobenius(matrix - factor.truncate(0.5)) == pytest.approx(math.sqrt(5), rel=1e-6)
        assert spectrum_of(matrix).condition_number == pytest.approx(3, rel=1e-6)

    @pytest.mark.parametrize("make", [Factor.of, spectrum_of])
    def test_says_so_where_none_converges(self, stubborn, make):
        def fail(*args, **options):
            raise scipy.linalg.LinAlgError("SVD did not converge")

        stubborn.setattr(scipy.linalg, "svd", fail)
        with pytest.raises(ModelError, match=r"singular values of layer 3 q do not converge"):
            make(torch.eye(2), name="layer 3 q")
