"""What the simulator understands of text: tokens, sentences, word stems."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import log

__all__ = ["closest_sentences", "sentences", "stems", "tokens"]

# English text gives about 1.3 tokens per word and 4 characters per token with this pattern, close to what real
# tokenizers give. The alternatives cover every character, so that the tokens of a text join to the text.
_TOKEN = re.compile(r" ?[^\W\d_]{1,8}| ?\d{1,3}| ?[^\w\s]|_|\s+|\w")
_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9`\"'(*])|\n\s*\n|\n(?=\s*(?:[-*>]|\d+[.)])\s)")
_NOT_PROSE = re.compile(r"^\s*(?:#+\s|\||`{3}).*$", re.MULTILINE)
_BULLET = re.compile(r"^\s*(?:[-*>]|\d+[.)])\s+")
_SUFFIXES = ("ations", "ation", "ings", "ing", "ies", "ied", "ed", "es", "s", "e")
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a about all an and any are as at be been but by can could did do does for from get give had has have how i if"
        " in into is it its me my no not of on one or our out please shall should so tell than that the their them then"
        " there these they this to up us was we were what when where which who why will with would you your"
    )
)


def tokens(text: str) -> list[str]:
    """Split a text into the simulator's tokens; joined, they give the text again.

    A token is up to 8 letters or up to 3 digits or one punctuation mark, each with the space before it, or a run of
    other white space.
    """
    return _TOKEN.findall(text)


def stems(text: str) -> list[str]:
    """Lower-case words of a text without stop words and common English endings, in their order."""
    return [_stem(word) for word in _WORD.findall(text.lower()) if word not in _STOP_WORDS]


def sentences(text: str) -> list[str]:
    """Sentences of a text on one line each; headings, table rows and code fences are left out."""
    found = (_BULLET.sub("", part) for part in _SENTENCE_END.split(_NOT_PROSE.sub("\n", text)))
    return [" ".join(sentence.split()) for sentence in found if len(sentence.split()) > 2]


def closest_sentences(question: str, candidates: Sequence[str], limit: int, *, skip: int = 0) -> list[str]:
    """Return the sentences that share most with the question, in the order of the text.

    Args:
        question: Text that is compared by its stems; rare stems weigh more.
        candidates: Sentences to choose from.
        limit: Most sentences returned.
        skip: Leaves out this many of the best ones, as long as one remains: another choice of the same answer.
    """
    wanted = set(stems(question))
    bags = [set(stems(sentence)) for sentence in candidates]
    weights = _rarity(wanted, bags)
    scored = [
        (sum(weights[stem] for stem in bag & wanted) / (4 + len(bag)) ** 0.5, -position)
        for position, bag in enumerate(bags)
    ]
    best = sorted((entry for entry in scored if entry[0] > 0), reverse=True)
    if not best:
        return []
    # A sentence that shares only a common word with the question would make the answer longer, not better.
    relevant = [entry for entry in best if entry[0] >= best[0][0] * 0.5]
    chosen = relevant[min(skip, len(relevant) - 1) :][:limit]
    return list(dict.fromkeys(candidates[-position] for _, position in sorted(chosen, key=lambda entry: -entry[1])))


def _rarity(wanted: Iterable[str], bags: Sequence[set[str]]) -> dict[str, float]:
    total = len(bags)
    return {stem: log(1 + total / (1 + sum(stem in bag for bag in bags))) for stem in wanted}


def _stem(word: str) -> str:
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word
