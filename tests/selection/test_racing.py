"""Racing: the error rate that it promises, exactly where that can be enumerated and by simulation
where not."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from results import without_timings
from samples import trial
from scipy.special import betaincc, betaln
from scipy.stats import binom

from eckart import Task, search
from eckart.algorithm1 import rate_of, search_all
from eckart.errors import EditError, RunError, TaskError
from eckart.records import Split
from eckart.scoring.evaluator import Evaluator
from eckart.scoring.methods import join_scores, score
from eckart.selection.plan import Plan
from eckart.selection.racing import ALPHA, plan_looks, race_rates
from eckart.selection.search import run_plan
from eckart.selection.settings import describe
from eckart.statistics.paired import log10_e_value
from eckart.weights.models import load_model

RATES = (0.0, 0.1, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995)


def e_table(most: int) -> np.ndarray:
    """Return e by (worse, better) in closed form, by the incomplete beta function."""
    worse, better = np.indices((most, most))
    with np.errstate(divide="ignore"):
        tail = np.log(betaincc(worse + 1, better + 1, 0.5))
    return np.exp(
        np.minimum((worse + better + 1) * math.log(2) + betaln(worse + 1, better + 1) + tail, 700)
    )


@pytest.mark.parametrize(
    ("worse", "better"), [(0, 0), (1, 0), (0, 7), (5, 2), (40, 31), (3, 260), (299, 0)]
)
def test_of_rows_that_turn_the_mean_of_bets_is_the_closed_form(worse, better):
    differences = np.array([1.0] * worse + [-1.0] * better + [0.0] * 9)
    e = e_table(300)[worse, better]
    assert log10_e_value(differences) == pytest.approx(math.log10(e), abs=1e-9)


def test_thousands_of_rows_neither_overflow_nor_vanish():
    for turned, e in ((1, 5001 * math.log(2) - math.log(5001)), (-1, -math.log(5001))):
        found = log10_e_value(np.full(5000, float(turned)))
        assert found == pytest.approx(e / math.log(10), rel=1e-3)


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5])
def test_another_row_adds_no_evidence_on_average(p):
    e = e_table(61)
    following = p * e[1:, :-1] + (1 - p) * e[:-1, 1:]
    assert (following <= e[:-1, :-1] * (1 + 1e-9)).all()


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.05 / 7])
def test_looking_after_every_row_errs_as_seldom_as_promised(alpha):
    """Exact, by counting paths: rows drawn from a population, at the edge of the hypothesis."""
    rows = 300
    crossed = e_table(rows + 1) >= 1 / alpha
    alive, errs = np.array([1.0]), 0.0
    for n in range(
        1, rows + 1
    ):  # alive[w]: probability of w worse rows among n, e never having crossed
        alive = 0.5 * (np.append(alive, 0.0) + np.append(0.0, alive))
        out = crossed[np.arange(n + 1), n - np.arange(n + 1)]
        errs += alive[out].sum()
        alive[out] = 0.0
    assert 0.1 * alpha < errs <= alpha


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.05 / 7])
@pytest.mark.parametrize("half", [1, 2, 7, 40, 150])
def test_the_same_holds_for_a_finite_set_in_random_order(alpha, half):
    """Exact, by counting paths: `half` rows worse and as many better, drawn without replacement."""
    crossed = e_table(half + 1) >= 1 / alpha
    alive = np.zeros((half + 1, half + 1))
    alive[0, 0], errs = 1.0, 0.0
    for worse in range(half + 1):
        for better in range(half + 1):
            left = 2 * half - worse - better
            if crossed[worse, better]:
                errs += alive[worse, better]
                continue
            if worse < half:
                alive[worse + 1, better] += alive[worse, better] * (half - worse) / left
            if better < half:
                alive[worse, better + 1] += alive[worse, better] * (half - better) / left
    assert errs <= alpha


def simulate(accuracies: list[float], rows: int, races: int, seed: int) -> tuple[float, float]:
    """Race candidates whose rows are alike in difficulty; return how often the first is dropped,
    and the rows read.

    A candidate is right where its own coin agrees with the row's; the row's is shared, so outcomes
    correlate.
    """
    dice, e = np.random.default_rng(seed), e_table(rows + 1)
    k, threshold = len(accuracies), (len(accuracies) - 1) / ALPHA
    shared, own = dice.random((races, rows, 1)), dice.random((races, rows, k))
    right = np.where(dice.random((races, rows, k)) < 0.7, shared, own) < np.array(accuracies)
    racing, read = np.ones((races, k), bool), np.zeros(races)
    for start, stop in pairwise((0, *plan_looks(rows))):
        read += racing.sum(1) * (stop - start) * ((racing.sum(1) > 1) | (start == 0))
        seen = right[:, :stop].astype(np.int64)
        worse = np.einsum("rnj,rni->rij", seen, 1 - seen)  # [race, candidate, rival]
        beats = (e[worse, worse.transpose(0, 2, 1)] >= threshold) & racing[:, None, :]
        if stop < rows:
            racing &= ~beats.any(2)
    return float((~racing[:, 0]).mean()), float(read.mean() / (rows * k))


def most_errors(races: int) -> float:
    """Return a share of errors that a race which errs with probability alpha exceeds once in 10,000
    simulations."""
    return binom.ppf(0.9999, races, ALPHA) / races


def test_of_equals_a_given_one_is_seldom_dropped():
    errs, read = simulate([0.7] * 8, rows=512, races=2000, seed=0)
    assert errs <= ALPHA < most_errors(2000)
    assert read > 0.95  # near ties are read to the end


def test_a_clear_winner_stays_and_saves_the_reading():
    errs, read = simulate([0.8, 0.6, 0.6, 0.6, 0.55, 0.5, 0.5, 0.5], rows=1024, races=500, seed=1)
    assert errs <= most_errors(500)
    assert read < 0.3


class Textbook:
    """Answers every row from a table of right and wrong by rate; None is a model that gives no
    numbers there."""

    def __init__(self, right: dict[float, list]):
        self.right = right
        self.asked = []

    def __call__(self, candidates, split):
        for edits in candidates:
            rate = rate_of(edits)
            self.asked.append((rate, split))
            right = self.right[rate][Split(split).start : Split(split).stop]
            outcome = {"score": None, "status": "failed", "error": "NaN"}
            if None not in right:
                values = np.where(np.array(right)[:, None], [-1.0, -2.0], [-2.0, -1.0])
                outcome = {"score": score(values, [0] * len(right), [""] * len(right))}
            key = f"{split} {edits}"
            yield trial(key, split=split, edits=edits, seconds=1.0, **outcome)


def draw(accuracies: list[float], rows: int, seed: int = 0) -> dict[float, list]:
    dice = np.random.default_rng(seed)
    return {
        rate: (dice.random(rows) < a).tolist() for rate, a in zip(RATES, accuracies, strict=False)
    }


def test_a_race_ends_where_the_whole_search_does():
    """The choice on all rows, over random orders of the same rows."""
    right = draw([0.72, 0.74, 0.76, 0.73, 0.6, 0.5, 0.3, 0.3], 400)
    best = search_all(Textbook(right), 0, "mlp", list(right), "accuracy").best
    dice, errs, saved = np.random.default_rng(3), 0, []
    for _ in range(100):
        order = dice.permutation(400)
        race = race_rates(
            Textbook({rate: [rows[i] for i in order] for rate, rows in right.items()}),
            0,
            "mlp",
            right,
            400,
        )
        errs += race.best != best
        saved.append(1 - race.rows_read / race.rows_without)
    assert errs <= 100 * most_errors(100)
    assert np.mean(saved) > 0.2


def test_what_a_race_says_of_itself():
    right = draw([0.8, 0.9, 0.2], 1000)
    executor, told = Textbook(right), []
    race = race_rates(executor, 2, "attn", reversed(right), 1000, told.append)
    trials = list(race.trials.values())
    assert race.best == 0.1
    assert race.looks == (125, 250, 500, 1000)[: len(race.looks)]
    assert race.seen[2] == 125
    assert race.rows_read == sum(race.seen) < race.rows_without == 3000
    assert [trial.score.n for trial in trials] == list(race.seen)
    assert [trial.seconds for trial in trials] == [race.looks.index(n) + 1 for n in race.seen]
    assert trials[2].split == "validation[0:125]"
    assert trials[2].score.right == right[0.5][:125]
    assert told == [str(drop) for drop in race.drops]
    assert "rate 0.5 dropped after 125 rows: 87 worse, 1 better than rate 0.1, e = 10^" in told[1]
    assert json.loads(json.dumps(race.to_json()))["rows_read"] == race.rows_read
    assert not any(name == "validation" for _, name in executor.asked)


def test_equals_are_read_to_the_end_and_the_smaller_rate_stays():
    rows = draw([0.7], 300)[0.0]
    race = race_rates(Textbook(dict.fromkeys((0.0, 0.5, 0.9), rows)), 0, "mlp", (0.9, 0.5, 0), 300)
    assert (race.best, race.seen, race.drops) == (0.0, (300,) * 3, ())
    assert [trial.split for trial in race.trials.values()] == ["validation"] * 3


def test_one_alone_is_read_no_further_and_not_to_clip_may_lose():
    right = {0.0: [False] * 800, 0.9: [True] * 800}
    race = race_rates(Textbook(right), 0, "mlp", right, 800)
    assert (race.best, race.looks, race.seen) == (0.9, (100,), (100, 100))
    assert race.trials[0].score.accuracy == 0


def test_a_race_of_one_reads_all_rows():
    right = draw([0.8], 512)
    race = race_rates(Textbook(right), 1, "mlp", right, 512)
    assert (race.looks, race.seen, race.trials[0].score.n) == ((512,), (512,), 512)


def test_a_candidate_that_fails_is_out_with_its_cause():
    right = draw([0.7, 0.7, 0.7], 400)
    right[0.5][150] = None
    race = race_rates(Textbook(right), 0, "mlp", right, 400)
    assert race.best in (0.0, 0.1)
    failed = race.trials[0.5]
    assert (failed.score, failed.error, race.seen) == (None, "NaN", (400, 400, 200))


def test_a_race_without_anybody_left_is_an_error():
    with pytest.raises(RunError, match="the unpruned model cannot be scored: NaN"):
        race_rates(Textbook({0.0: [None] * 9, 0.5: [True] * 9}), 0, "mlp", (0.0, 0.5), 9)
    right = {0.0: [False] * 400, 0.5: [True] * 350 + [None] * 50, 0.9: [True] * 350 + [None] * 50}
    with pytest.raises(RunError, match="no rate is left in the race: NaN; search without --race"):
        race_rates(Textbook(right), 0, "mlp", right, 400)


@pytest.mark.parametrize("rows", [1, 63, 64, 127, 128, 1000, 1024, 10_000])
def test_looks_end_with_all_rows_and_start_late_enough(rows):
    looks = plan_looks(rows)
    assert looks[-1] == rows
    assert looks[0] >= min(rows, max(64, rows // 16))
    assert len(looks) <= 5
    assert all(a < b <= 2 * a + 1 for a, b in pairwise(looks))


def test_only_accuracy_is_raced(model, many):
    with pytest.raises(EditError, match=r"says nothing sure of macro_f1; leave out --race"):
        Plan(metric="macro_f1", race=True)
    object.__setattr__(many, "metric", "balanced_accuracy")
    try:
        with pytest.raises(EditError, match="balanced_accuracy"):
            search(model, many, race=True)
        assert search(model, many, rates=[0.5], layer=1, metric="accuracy", race=True).race
    finally:
        object.__setattr__(many, "metric", "accuracy")


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Task:
    """300 validation rows."""
    path = tmp_path_factory.mktemp("data") / "many.csv"
    lines = [
        f"the {['good', 'bad'][i % 2]} view {i} of town {i * i},{['good', 'bad'][i % 2]}"
        for i in range(340)
    ]
    path.write_text("review,verdict\n" + "\n".join(lines) + "\n")
    return Task.load(
        data=path, text_column="review", label_column="verdict", shots=2, split_sizes=(300, 30)
    )


def test_rows_of_a_split_are_a_split(model, many):
    evaluator = Evaluator(load_model(model), many)
    whole = evaluator([], "validation").score
    parts = [evaluator([], f"validation[{a}:{b}]").score for a, b in ((0, 100), (100, 300))]
    joined = join_scores(parts)
    assert (joined.labels, joined.predictions) == (whole.labels, whole.predictions)
    assert joined.log_loss == pytest.approx(whole.log_loss, abs=1e-5)
    assert evaluator.key([], "validation[0:300]") == evaluator.key([], "validation")
    assert evaluator.key([], "validation[0:100]") != evaluator.key([], "validation[100:200]")
    with pytest.raises(TaskError, match=r"rows \[200:301\] are not among the split's 300 rows"):
        evaluator.fitted("validation[200:301]")
    with pytest.raises(TaskError, match="no split"):
        evaluator.fitted("nothing[0:1]")


def test_a_race_that_was_killed_goes_on_and_ends_the_same(model, many, tmp_path):
    plan, loaded = Plan(rates=(0.5, 0.9, 0.99), layer=1, race=True), load_model(model)

    class Killed(Evaluator):
        left = 6

        def outcomes(self, edits, split, scorings):
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return super().outcomes(edits, split, scorings)

    calm = run_plan(plan, Evaluator(loaded, many), tmp_path / "calm")
    assert calm.race.looks == (75, 150, 300)
    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, Killed(loaded, many), tmp_path / "killed")
    rest = Killed(loaded, many)
    rest.left = 10_000
    run_plan(plan, rest, tmp_path / "killed")
    trials = sum(calm.race.looks.index(seen) + 1 for seen in calm.race.seen) + 1 + (calm.rate > 0)
    assert 10_000 - rest.left == trials - 6
    results = [without_timings(tmp_path / name) for name in ("calm", "killed")]
    assert results[0] == results[1]


def test_a_race_is_another_run_and_no_race_is_the_run_it_always_was(model, many, tmp_path):
    evaluator = Evaluator(load_model(model), many)
    assert "race" not in describe(Plan(), evaluator)
    run_plan(Plan(rates=(0.5,), layer=1), evaluator, tmp_path)
    with pytest.raises(RunError, match=r"other settings \(race null, now 0.05\)"):
        run_plan(Plan(rates=(0.5,), layer=1, race=True), evaluator, tmp_path)
