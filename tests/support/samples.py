"""Small values that several test files use."""

from eckart.records import Edit, Row, Rows, Setting, Trial
from eckart.statistics.scores import Score


def score(accuracy: float = 0.5) -> Score:
    return Score(
        n=2,
        accuracy=accuracy,
        balanced_accuracy=0.5,
        macro_f1=1 / 3,
        log_loss=0.7,
        majority_rate=0.5,
        confusion=((1, 0), (1, 0)),
        labels=(0, 1),
        predictions=(0, 0),
        log_likelihoods=((-0.1, -2.0), (-0.3, -1e-17)),
    )


SETTING = Setting(model="m", task="t", shots=2, seed=0, scoring="sum")
ROWS = Rows(
    labels=("bad", "good"), rows=(Row("train:0", "text: dull", 0), Row("train:3", "text: fine", 1))
)


def trial(key: str = "k", **changes) -> Trial:
    return Trial(
        **{
            "key": key,
            "setting": SETTING,
            "split": "test",
            "rows": ROWS.digest,
            "edits": (Edit(1, "mlp", 0.5),),
            "score": score(),
            **changes,
        }
    )
