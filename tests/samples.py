"""Small values that several test files use."""

from eckart.records import Edit, Score, Trial


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


def trial(key: str = "k", **changes) -> Trial:
    return Trial(
        **{"key": key, "split": "test", "edits": (Edit(1, "mlp", 0.5),), "score": score(), **changes}
    )
