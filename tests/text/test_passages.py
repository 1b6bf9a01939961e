"""A text in passages: what they hold, where they begin."""

import pytest

from modernbert.text.passages import PASSAGE, STEP, passages_of


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 99, 100, 101, 149, 150, 151, 1234])
def test_passages_overlap_by_half_and_hold_the_whole_text(count):
    """Against slices of the list of words."""
    words = [f"w{number}" for number in range(count)]
    found = passages_of("  ".join(words))
    begins = [0, *range(STEP, max(1, count - PASSAGE + STEP), STEP)]
    assert [passage.split() for passage in found] == [words[begin : begin + PASSAGE] for begin in begins]
    assert found[-1].split()[-1:] == words[-1:]


def test_passages_without_overlap_are_the_text_again():
    text = "\tOne two\n\nthree  four five "
    assert "".join(passages_of(text, 2, 2)) == text and len(passages_of(text, 2, 2)) == 3
