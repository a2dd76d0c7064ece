"""How the simulator reads text."""

from hypothesis import given
from hypothesis import strategies as st
from stagelight.sim.language import closest_sentences, sentences, stems, tokens
from stagelight.sim.vectors import embed


@given(st.text())
def test_tokens_join_to_the_text(text: str) -> None:
    """No character is lost or added, whatever the text."""
    assert "".join(tokens(text)) == text


@given(st.text(min_size=1), st.integers(1, 64))
def test_every_text_has_a_unit_vector(text: str, dimensions: int) -> None:
    """Vectors have length 1 for any text and any number of dimensions."""
    vector = embed(text, size=64, dimensions=dimensions)

    assert len(vector) == dimensions
    assert abs(sum(value * value for value in vector) - 1) < 1e-5


def test_sentences_leave_out_what_cannot_be_said() -> None:
    """Headings, tables and code fences are left out; list items are sentences."""
    text = (
        "# Title\nFirst point of all. It goes\non here.\n| a | b |\n- An item to say\n1. Another item to say\n```py\n"
    )

    assert sentences(text) == ["First point of all.", "It goes on here.", "An item to say", "Another item to say"]


def test_words_are_compared_by_their_stems() -> None:
    """Endings and stop words do not matter."""
    assert stems("How are the prices priced?") == stems("price, pricing")


def test_the_closest_sentences_come_in_the_order_of_the_text() -> None:
    """Sentences that share rare words win; another choice skips the best one."""
    candidates = [
        "A dog barks at night.",
        "Prices are dated and exact.",
        "The cat sleeps.",
        "Exact prices need a date.",
    ]

    assert closest_sentences("Which prices are exact?", candidates, 2) == [candidates[1], candidates[3]]
    assert len(closest_sentences("Which prices are exact?", candidates, 2, skip=1)) == 1
    assert closest_sentences("Which bird sings?", candidates, 2) == []
