"""The power that is said is the power that is had, and the rows that are asked for are enough.

The simulation is that of benchmarks/power.py, which prints more of it for docs/statistics.md.
"""

import importlib.util
import math
import sys
from pathlib import Path

import pytest

from eckart.errors import EckartError
from eckart.statistics.paired import mcnemar_exact
from eckart.statistics.power import (
    POWER,
    Design,
    Outlook,
    Turned,
)

SIMULATED = Path(__file__).parents[2] / "benchmarks" / "simulated.py"
LOOKED = Turned(rows=5, looked=64, edit="29:mlp:0.995")


@pytest.fixture(scope="module")
def told():
    """How often the simulation tells a gain."""
    spec = importlib.util.spec_from_file_location("simulated", SIMULATED)
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulated"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module.told
    del sys.modules["simulated"]


def error(rate, times):
    return 3 * math.sqrt(rate * (1 - rate) / times)


class TestOneDraw:
    def test_the_power_is_the_sum_over_all_that_may_happen(self):
        n, turns, gain = 30, 0.4, 0.2
        fixes = (turns + gain) / 2
        kept = 1 - turns
        found = sum(
            math.comb(n, fixed)
            * math.comb(n - fixed, broken)
            * fixes**fixed
            * (turns - fixes) ** broken
            * kept ** (n - fixed - broken)
            for fixed in range(n + 1)
            for broken in range(min(fixed, n - fixed + 1))
            if mcnemar_exact(fixed, broken) <= 0.05
        )
        assert Design(turns).power(gain, n) == pytest.approx(found, rel=1e-9)

    @pytest.mark.parametrize(("gain", "turns"), [(0.01, 0.1), (0.02, 0.05), (0.05, 0.4)])
    def test_one_row_less_is_too_few(self, gain, turns):
        rows = int(Design(turns).rows(gain))
        power = [Design(turns).power(gain, n) for n in (rows - 1, rows)]
        assert power[0] < POWER <= power[1]
        assert Design(turns).smallest(rows) == pytest.approx(gain, rel=0.01)

    def test_few_changes_can_show_nothing(self):
        assert Design(0.05).smallest(56) == math.inf
        assert Design(0.04).rows(0.05) == math.inf

    def test_more_rows_show_less(self):
        gains = [Design(0.2).smallest(n) for n in (100, 200, 400, 800)]
        assert gains == sorted(gains, reverse=True)

    def test_a_stricter_level_needs_more(self):
        assert Design(0.1, level=0.005).rows(0.02) > Design(0.1).rows(0.02) > 2000
        assert Design(0.1).rows(0.02) > Design(0.1).rows(0.02, power=0.5)


class TestSeveralDraws:
    @pytest.mark.parametrize("shared", [0.0, 1.0])
    @pytest.mark.parametrize(
        ("design", "rows"),
        [
            (Design(0.1, 3, 0.0), 400),
            (Design(0.1, 5, 0.025), 400),
            (Design(0.3, 5, 0.02), 200),
            (Design(0.3, 10), 1000),
        ],
    )
    def test_no_fewer_find_the_smallest_gain_than_is_said(self, told, design, rows, shared):
        rate = told(design, design.smallest(rows), rows, 300, shared)
        assert rate >= POWER - error(POWER, 300)

    def test_it_is_not_said_that_much_less_is_found_than_is(self, told):
        design = Design(0.1, 5, 0.02)
        rate = told(design, design.smallest(400), 400, 300, shared=1.0)
        assert rate <= POWER + 0.05 + error(POWER, 300)

    def test_no_number_of_rows_makes_up_for_few_draws(self):
        assert Design(0.1, 5, 0.03).rows(0.02) == math.inf
        assert Design(0.1, 50, 0.03).rows(0.02) < 5000

    def test_draws_that_differ_show_less(self):
        gains = [Design(0.2, 5, between).smallest(400) for between in (0.0, 0.02, 0.05)]
        assert gains == sorted(gains)
        assert Design(0.2, 5).spread == 0.1


class TestOutlook:
    def test_it_says_what_it_knows(self):
        said = str(Outlook.after(LOOKED, 400))
        for words in (
            "400 test rows and one draw",
            "7.8% of the rows turn (5 of the first 64 validation rows at 29:mlp:0.995",
            "95% interval 3.4 to 17.0%",
            "a gain of 4.1 points or more is told with 80% power at level 0.05",
            "a gain of 1 point needs 6,310 rows, 2 points needs 1,609 rows, 5 points needs 257",
        ):
            assert words in said

    def test_it_says_the_power_of_each_gain(self):
        assert Outlook(Design(0.04), 400).had() == (
            "on 400 rows a gain of 1 point with 11% power, 2 points with 43% power"
        )
        assert Outlook(Design(0.04)).had() == ""

    def test_where_nothing_turns_it_says_how_much_may(self):
        turned = Turned(rows=0, looked=64, edit="3:mlp:0.9")
        outlook = Outlook.after(turned, 400)
        assert outlook.design.turns == 3 / 64
        assert "at most 4.7% of the rows turn (none of the first 64" in str(outlook)
        assert "5 points is more than turned" in str(outlook)

    def test_where_nothing_can_be_told_it_says_so(self):
        assert "no gain is told with 80% power" in str(Outlook.after(LOOKED, 50))

    def test_it_is_not_known_how_much_draws_differ(self):
        turned = Turned(rows=16, looked=64, edit="29:mlp:0.995")
        outlook = Outlook.after(turned, 2000, draws=10)
        said, values = str(outlook), outlook.to_json()
        assert (
            "a gain of 12.7 points or more is told with 80% power at level 0.05 if the draws'"
            " gains differ by 12.5 points, half of what turns, and a gain of 3.1 points or more is"
            " told if they do not"
        ) in said
        assert "a gain of 1 point needs at least 19,625 rows" in said
        assert values["between"] == 0.125
        assert values["smallest_gain"] > values["if_draws_gain_alike"]["smallest_gain"]
        assert [each["rows_needed"] for each in values["gains"]] == [None, None, None]

    def test_it_is_known_how_much_draws_differ(self):
        outlook = Outlook(Design(0.1, 5, 0.01), 400)
        assert "5 draws whose gains differ by 1 point, where 10.0%" in str(outlook)
        assert "a gain of 1 point needs more draws" in str(outlook)
        assert "if_draws_gain_alike" not in outlook.to_json()

    def test_its_values_have_no_infinities(self):
        values = Outlook.after(LOOKED, 50, draws=2).to_json()
        assert values["smallest_gain"] is None
        assert [each["rows_needed"] for each in values["gains"]] == [None, None, None]
        assert values["measured"] == {"rows": 5, "looked": 64, "edit": "29:mlp:0.995"}
        alone = Outlook(Design(0.03)).to_json()
        assert [each["power"] for each in alone["gains"]] == [None, None, None]
        assert alone["gains"][0]["rows_needed"] == Design(0.03).rows(0.01)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Design(0.0), "share of rows that turn 0"),
        (lambda: Design(math.nan), "share of rows that turn nan"),
        (lambda: Design(0.1, level=1.0), "level 1"),
        (lambda: Design(0.1, draws=0), "0 draws"),
        (lambda: Design(0.1, between=0.01), "there is one draw"),
        (lambda: Design(0.1, 5, between=0.2), "differ by 20 points between draws where 10.0%"),
        (lambda: Design(0.1).smallest(0), "0 rows make no test"),
        (lambda: Design(0.1).smallest(10, power=1.0), "power 1"),
        (lambda: Design(0.1).rows(0.0), "a gain of 0 points"),
        (lambda: Design(0.1).rows(math.nan), "a gain of nan points"),
    ],
)
def test_what_is_no_experiment_is_refused(made, words):
    with pytest.raises(EckartError, match=words):
        made()
