"""The words of a report that a reader may not know, each explained where it stands."""

from __future__ import annotations

import re
from html import escape

from eckart.reports.table import Table

GLOSSARY = {
    "95% interval": "Where the true value lies, in 95 of 100 experiments like this one.",
    "adjusted p": "A p value made larger for everything else that was tried (Holm's way), because"
    " one of many tries looks good by chance alone.",
    "attention": "The matrices q, k, v and o of a layer, by which tokens look at each other.",
    "balanced": "Accuracy averaged over the labels, each counting alike however rare it is.",
    "calibrated": "Answers corrected for a model's lean to one label, whatever the text.",
    "cannot tell": "Neither a gain nor a loss can be told from chance here; it does not mean that"
    " there is no difference.",
    "cell": "One edit in one condition: a model, task, number of shots and scoring.",
    "clipping": "Setting a matrix's smallest singular values to zero; the rate is the share of them"
    " that goes.",
    "condition number": "A matrix's largest singular value over its smallest.",
    "cross-validated": "No rows were kept back, so the choice was made again and again on one part"
    " of the rows and measured on the rest.",
    "demonstrations": "Solved examples in the prompt; a seed draws them.",
    "detectable": "The smallest true gain that an experiment like this one finds four times in"
    " five.",
    "draws": "Sets of demonstrations: each seed draws another.",
    "FDR": "A p value adjusted so that at most 5% of the cells called different are not.",
    "Holm": "A p value adjusted for the number of cells, so that not even one of them is called"
    " different by chance in more than 5% of runs.",
    "KL": "How far the clipped model's next-token probabilities are from the unpruned model's, in"
    " nats; 0 where they are the same.",
    "log-loss": "Minus the log of the probability given to the right label, in nats, averaged;"
    " smaller is better.",
    "macro-F1": "F1 (of precision and recall) averaged over the labels.",
    "majority": "The share of the most frequent label: what always answering it would score.",
    "McNemar": "A test that looks only at the rows that changed: were more fixed than broken than"
    " a coin would give?",
    "MLP": "The feed-forward matrices of a layer: up, down and, where it has one, gate.",
    "nats": "Units of information, with natural logarithms.",
    "perplexity": "How many tokens a model hesitates between, on average; smaller is better.",
    "points": "Percentage points: from 60% to 62% is 2 points.",
    "scoring": "How a label's probability becomes an answer, such as the sum over its tokens, or"
    " calibrated.",
    "seed x row": "A row counted once for every seed that scored it.",
    "shots": "How many demonstrations stand in the prompt.",
    "singular": "Of a matrix: its smallest singular value is 0.",
    "singular values": "How much a matrix stretches along each of its directions; the smallest"
    " matter least.",
    "spread over seeds": "How much the unpruned model's result alone moves from one draw of"
    " demonstrations to the next (standard deviation).",
    "unpruned": "The model as it was, nothing clipped.",
    "validation": "The rows that made the choice. What is highest there is flattered.",
}
_WORDS = re.compile(
    r"(?<![\w-])("
    + "|".join(map(re.escape, sorted(GLOSSARY, key=len, reverse=True)))
    + r")(?![\w-])",
    re.IGNORECASE,
)
_FIGURES = re.compile(r"\b(n|p) = ")
_TYPED = re.compile("`([^`]+)`")
_EDGED = re.compile(r"\(?<button [^>]*>[^<]*</button>(?:\xa0=\xa0[\d.]*|[,.;:)]*)")
"""A button with what no line may part from it: a line breaks beside a button as it would not beside
a word."""
_NAMES = {word.lower(): word for word in GLOSSARY}


def words_in(*texts: str) -> list[str]:
    """Return the words of the glossary that stand in some texts, in its order.

    >>> words_in("p, Holm over three draws")
    ['draws', 'Holm']
    """
    found = {_NAMES[match.lower()] for text in texts for match in _WORDS.findall(text)}
    return [word for word in GLOSSARY if word in found]


def words_of(table: Table) -> list[str]:
    """Return the words of the glossary in a table's heads and note."""
    return words_in(table.note, *(column.title for column in table.columns))


def anchor(word: str) -> str:
    return "word-" + re.sub(r"\W+", "-", word.lower())


def explained(text: str) -> str:
    """Return a text as HTML whose words of the glossary open their meaning, each where it stands
    first; what is typed is set apart, and no number parts from what it is of."""
    seen: set[str] = set()

    def button(match: re.Match[str]) -> str:
        word = _NAMES[match[0].lower()]
        if word in seen:
            return match[0]
        seen.add(word)
        about = f'type="button" class="word" popovertarget="{anchor(word)}"'
        return f"<button {about}>{match[0]}</button>"

    marked = _WORDS.sub(
        button, escape(_FIGURES.sub("\\1\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}", text))
    )
    return _TYPED.sub(r"<code>\1</code>", _EDGED.sub(r'<span class="kept">\g<0></span>', marked))
