"""What checks shapes and types while the tests run does check them."""

import pytest
import torch
from checked import checked
from jaxtyping import Float, TypeCheckError
from torch import Tensor


@checked
def product(a: Float[Tensor, "m k"], b: Float[Tensor, "k n"], times: float) -> Float[Tensor, "m n"]:
    return (a @ b * times)[: len(a) - (times < 0)]


def test_sizes_bind_one_another():
    a, b = torch.ones(2, 3), torch.ones(3, 4)
    assert product(a, b, 2).shape == (2, 4)  # an int is a float
    for wrong in [(a, a, 1.0), (a, b, -1.0), (a, b, "1"), (a[0], b, 1.0)]:
        with pytest.raises(TypeCheckError):
            product(*wrong)


def test_an_inner_function_is_checked_each_time_with_what_it_closes_over():
    def outer(shift):
        @checked
        def inner(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> int:
            return int((a + b).sum()) + shift

        return inner

    one, two = outer(1), outer(2)
    for inner, expected in ((one, 3), (two, 4), (one, 3)):
        assert inner(torch.ones(1), torch.ones(1)) == expected
        with pytest.raises(TypeCheckError):
            inner(torch.ones(1), torch.ones(2))
    with pytest.raises(TypeCheckError):
        outer(0.5)(torch.ones(1), torch.ones(1))


def test_annotations_stay_as_they_were_written():
    def named(a: "int") -> "Later":
        return a

    assert checked(named)(3) == 3
    assert checked(named).__annotations__ == {"a": "int", "return": "Later"}
