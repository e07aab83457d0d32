"""The text of the guard: windows, and what they say equals a plain computation."""

import math

import numpy as np
import pytest
import torch
from families import FAMILIES, build, tiny_tokenizer

from eckart import Edit, clip
from eckart.errors import ModelError, NotANumberError, TaskError
from eckart.scoring.forward.states import StateStore
from eckart.scoring.forward.trunk import Pass
from eckart.scoring.forward.windows import WindowReader
from eckart.scoring.text import WINDOW, GuardText, TextScorer
from eckart.weights.models import load_model

TEXT = GuardText("The good food is in the town, and the view over it is the best. " * 12, "made")
LOW, HIGH = (Edit(0, "attn", 0.9),), (Edit(2, "mlp", 0.75),)


def scorer_of(family: str, text: GuardText = TEXT, bos: bool = False, **options) -> TextScorer:
    model = load_model(build(family), tokenizer=tiny_tokenizer(add_bos=bos))
    return TextScorer(model, text, **options)


def plainly(scorer: TextScorer, edits) -> tuple[float, float]:
    """Return the loss and the divergence a token: full forwards, all logits, a loop over tokens."""
    model = scorer.model.model

    @torch.inference_mode()
    def distributions() -> list[list[torch.Tensor]]:
        return [
            list(model(input_ids=torch.tensor([w])).logits[0].double().log_softmax(-1))
            for w in scorer.windows
        ]

    before = distributions()
    with clip(model, edits):
        after = distributions()
    loss = divergence = tokens = 0
    for window, was, now in zip(scorer.windows, before, after, strict=True):
        for place, token in enumerate(window[1:]):
            loss -= float(now[place][token])
            p = was[place].exp()
            divergence += float((p * (was[place] - now[place]))[p > 0].sum())
            tokens += 1
    return loss / tokens, divergence / tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_divergence_equal_a_plain_computation(family, recwarn):
    scorer = scorer_of(family)
    found = {trial.edits: trial.score for trial in scorer.score([(), LOW, HIGH], "all")}
    for edits in (LOW, HIGH):
        loss, divergence = plainly(scorer, edits)
        assert found[edits].log_loss == pytest.approx(loss, abs=1e-5)
        assert found[edits].divergence == pytest.approx(divergence, abs=1e-5)
        assert divergence > 1e-3, "an edit that changes nothing would prove nothing"
    assert found[()].log_loss == pytest.approx(plainly(scorer, ())[0], abs=1e-5)
    assert found[()].divergences == (0.0,) * len(scorer.windows)
    assert not recwarn.list, "nothing was read the slow way"
