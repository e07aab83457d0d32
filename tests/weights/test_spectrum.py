"""Both ends of the spectrum are right where that is hard, and rounding is told from the matrix."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from matrices import DTYPES, deterministic, frobenius, matrices, numpy_values, with_spectrum
from scipy.sparse.linalg import ArpackError

import eckart.weights.spectrum
from eckart.errors import ModelError
from eckart.weights.linalg import Factor
from eckart.weights.spectrum import rounding_norm, spectrum_of

EPS = torch.finfo(torch.float64).eps


class TestSpectrum:
    @pytest.mark.parametrize("exponent", range(13))
    @pytest.mark.parametrize("shape", [(40, 40), (40, 17), (17, 60)])
    def test_condition_numbers_of_known_spectra(self, exponent, shape):
        k = min(shape)
        matrix = with_spectrum(np.logspace(0, -exponent, k), shape)
        spectrum = spectrum_of(matrix)
        # The entries are rounded by eps * sigma_max, which is 10**exponent times as much to
        # sigma_min.
        relative = 100 * EPS * 10**exponent
        assert spectrum.condition_number == pytest.approx(10**exponent, rel=relative)
        assert spectrum.condition_number == pytest.approx(
            np.linalg.cond(matrix.numpy()), rel=relative
        )
        assert spectrum.rank == k == np.linalg.matrix_rank(matrix.numpy())

    def test_reads_what_a_gram_matrix_cannot(self):
        matrix = with_spectrum(np.logspace(0, -10, 30), (30, 30))
        through_gram = float(np.linalg.eigvalsh((matrix.T @ matrix).numpy())[0])
        assert abs(through_gram) > 1e3 * (1e-10) ** 2  # noise, where the true value is 1e-20
        assert spectrum_of(matrix).sigma_min == pytest.approx(1e-10, rel=1e-4)

    @deterministic
    @given(matrices(DTYPES))
    def test_is_numpys_of_the_upcast_matrix(self, matrix):
        spectrum = spectrum_of(matrix, name="w")
        values = numpy_values(matrix)
        slack = 1e-12 * (1e-3 + frobenius(matrix))
        assert spectrum.shape == tuple(matrix.shape)
        assert spectrum.sigma_max == pytest.approx(values[0], abs=slack)
        assert spectrum.sigma_min == pytest.approx(values[-1], abs=slack)
        tolerance = max(matrix.shape) * EPS * spectrum.sigma_max
        if not ((values > tolerance / 10) & (values < 10 * tolerance)).any():
            # Within that, two LAPACKs may fall on either side.
            assert spectrum.rank == np.linalg.matrix_rank(matrix.double().numpy())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_a_half_precision_matrix_is_conditioned_as_it_is_stored(self, dtype):
        matrix = with_spectrum(np.logspace(0, -2, 32), (32, 48)).to(dtype)
        exact = np.linalg.cond(matrix.double().numpy())
        assert spectrum_of(matrix).condition_number == pytest.approx(exact, rel=1e-10)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_singular_matrix_says_so(self, dtype):
        matrix = torch.randn(64, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
        spectrum = spectrum_of(torch.cat([matrix, matrix, torch.zeros(64, 4, dtype=dtype)], dim=1))
        assert spectrum.singular
        assert spectrum.condition_number == math.inf
        assert spectrum.rank == 30

    def test_a_nearly_singular_matrix_is_not_called_singular(self):
        matrix = torch.eye(8, dtype=torch.float64)
        matrix[0, 0] = 1e-12
        assert spectrum_of(matrix).condition_number == 1e12
        matrix[0, 0] = 1e-17
        assert spectrum_of(matrix).rank == 7

    def test_the_zero_matrix_is_singular(self):
        spectrum = spectrum_of(torch.zeros(3, 5))
        assert (spectrum.sigma_max, spectrum.sigma_min, spectrum.rank) == (0.0, 0.0, 0)
        assert spectrum.condition_number == math.inf
        assert spectrum.singular

    def test_one_row_is_perfectly_conditioned(self):
        assert spectrum_of(torch.tensor([[3.0, 4.0]])).condition_number == 1.0


HARD = {
    "even": np.linspace(2, 1, 400),
    "1e8": np.logspace(0, -8, 400),
    "repeated ends": np.r_[np.full(10, 3.0), np.linspace(2, 1, 380), np.full(10, 0.1)],
    "two values": np.r_[np.ones(200), np.full(200, 1e-8)],
    "one small": np.r_[np.ones(399), 1e-8],
    "orthogonal": np.ones(400),
    "nearly orthogonal": np.linspace(1 + 1e-7, 1, 400),
}


class TestLanczos:
    """Above SMALL nothing computes all singular values, except where the ends do not come out
    otherwise."""

    @pytest.fixture
    def alone(self, monkeypatch):
        """Take the fallback away."""
        monkeypatch.setattr(eckart.weights.spectrum, "singular_values", None)

    @pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e100])
    @pytest.mark.parametrize("shape", [(400, 400), (600, 400), (400, 500)])
    @pytest.mark.parametrize("values", HARD.values(), ids=HARD)
    def test_both_ends_to_six_digits(self, alone, values, shape, scale):
        matrix = scale * with_spectrum(values, shape)
        spectrum, exact = spectrum_of(matrix), numpy_values(matrix)
        assert spectrum.sigma_max == pytest.approx(exact[0], rel=5e-7)
        assert spectrum.sigma_min == pytest.approx(exact[-1], rel=5e-7)
        assert spectrum.rank == 400

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_of_random_weights_in_every_dtype(self, alone, dtype):
        matrix = torch.randn(500, 500, generator=torch.Generator().manual_seed(1)).to(dtype)
        exact = numpy_values(matrix)
        spectrum = spectrum_of(matrix)
        assert (spectrum.sigma_max, spectrum.sigma_min) == pytest.approx(
            (exact[0], exact[-1]), rel=5e-7
        )
        assert spectrum == spectrum_of(matrix), "the same again"

    @pytest.mark.parametrize("exponent", [10, 12, 13])
    def test_beyond_six_digits_it_is_as_good_as_float64(self, alone, exponent):
        matrix = with_spectrum(np.logspace(0, -exponent, 300), (300, 300))
        assert spectrum_of(matrix).sigma_min == pytest.approx(
            numpy_values(matrix)[-1], abs=100 * EPS
        )

    @pytest.mark.parametrize("rank", [0, 1, 200, 399])
    def test_singular_matrices_are_counted_out(self, rank):
        matrix = with_spectrum(np.r_[np.linspace(2, 1, rank), np.zeros(400 - rank)], (450, 400))
        spectrum = spectrum_of(matrix)
        assert (spectrum.rank, spectrum.condition_number) == (rank, math.inf)
        assert not spectrum.resolved

    def test_columns_of_zeros_and_twins(self):
        matrix = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
        matrix[:, 7] = 0
        matrix[:, 9] = matrix[:, 11]
        assert spectrum_of(matrix).rank == 298

    def test_what_does_not_converge_is_computed_in_full(self, monkeypatch):
        def fail(*args, **options):
            raise ArpackError(3)

        matrix = with_spectrum(np.logspace(0, -3, 300), (300, 300))
        monkeypatch.setattr(eckart.weights.spectrum, "eigsh", fail)
        assert spectrum_of(matrix).condition_number == pytest.approx(1e3)

    @pytest.mark.parametrize("size", [3, 5, 30])
    @pytest.mark.parametrize("explicit", [False, True])
    def test_the_gpus_way_is_the_cpus(self, monkeypatch, size, explicit):
        real = eckart.weights.spectrum._inverse_gram
        monkeypatch.setattr(eckart.weights.spectrum, "SMALL", 2)
        monkeypatch.setattr(
            eckart.weights.spectrum, "_inverse_gram", lambda r, explicit: real(r, forced)
        )
        forced = explicit
        matrix = with_spectrum(np.logspace(0, -8, size), (size + 1, size))
        assert spectrum_of(matrix).condition_number == pytest.approx(1e8, rel=5e-7)

    def test_overflow_is_said(self):
        with pytest.raises(ModelError, match="singular values overflow"):
            spectrum_of(1e307 * (1 + torch.eye(300, dtype=torch.float64)))


def spectral_norm(matrix):
    return float(torch.linalg.matrix_norm(matrix, 2))


class TestRounding:
    @pytest.mark.parametrize("scale", [1.0, 0.02, 1e-5])
    @pytest.mark.parametrize("shape", [(300, 300), (600, 100), (64, 200)])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_is_what_rounding_really_does(self, dtype, shape, scale):
        generator = torch.Generator().manual_seed(0)
        exact = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        stored = exact.to(dtype)
        made = spectral_norm(exact - stored.double())
        assert 0.75 < made / rounding_norm(stored.double(), dtype) < 1

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_is_below_the_simple_formula(self, dtype):
        matrix = torch.randn(400, 400, generator=torch.Generator().manual_seed(0)).to(dtype)
        simple = (
            torch.finfo(dtype).eps
            / math.sqrt(12)
            * float(matrix.double().square().mean().sqrt())
            * 40
        )
        assert 0.75 < rounding_norm(matrix.double(), dtype) / simple < 1

    def test_one_row_of_outliers_counts_by_its_own_size(self):
        generator = torch.Generator().manual_seed(0)
        exact = torch.randn(300, 300, generator=generator, dtype=torch.float64)
        exact[5] *= 1000
        stored = exact.bfloat16()
        assert (
            0.5
            < spectral_norm(exact - stored.double())
            / rounding_norm(stored.double(), torch.bfloat16)
            < 1
        )

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
    def test_a_clipped_matrix_is_refilled_by_rounding_and_says_so(self, dtype):
        matrix = torch.randn(300, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
        clipped = spectrum_of(Factor.of(matrix).truncate(0.5))
        assert not clipped.singular
        assert 0 < clipped.sigma_min < clipped.rounding
        assert not clipped.resolved

    def test_a_well_conditioned_matrix_is_resolved(self):
        matrix = with_spectrum(np.linspace(2, 1, 300), (300, 300))
        assert spectrum_of(matrix.bfloat16()).resolved
        assert spectrum_of(with_spectrum(np.logspace(0, -5, 300), (300, 300)).float()).resolved
        assert not spectrum_of(
            with_spectrum(np.logspace(0, -5, 300), (300, 300)).bfloat16()
        ).resolved

    @pytest.mark.parametrize("dtype", [*DTYPES, torch.float8_e4m3fn])
    def test_of_the_zero_matrix_and_one_entry(self, dtype):
        assert rounding_norm(torch.zeros(3, 4, dtype=torch.float64), dtype) >= 0
        one = rounding_norm(torch.ones(1, 1, dtype=torch.float64), dtype)
        assert one == pytest.approx(2 * torch.finfo(dtype).eps / math.sqrt(12))
