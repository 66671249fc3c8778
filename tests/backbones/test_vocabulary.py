import pytest

from graft.backbones.vocabulary import Vocabulary, words_of

TEXTS = ["A film, it's a good film.", "a bad film"]


def test_words_are_small_and_punctuation_is_apart():
    assert words_of(TEXTS[0]) == ["a", "film", ",", "it's", "a", "good", "film", "."]


def test_the_most_frequent_words_come_first_and_others_share_an_id():
    vocabulary = Vocabulary(TEXTS, max_words=3)
    assert vocabulary.words == ["a", "film", ","]
    assert vocabulary.size == 5
    assert vocabulary(["A good film", "???", " "], 8) == [([2, 1, 3], False), ([1, 1, 1], False), ([1], False)]
    assert Vocabulary(TEXTS, min_count=2).words == ["a", "film"]


def test_long_texts_are_cut_and_counted():
    assert Vocabulary(TEXTS)(["a film", "a film a"], 2) == [([2, 3], False), ([2, 3], True)]


def test_the_words_decide_the_repr():
    assert repr(Vocabulary(TEXTS)) == repr(Vocabulary(TEXTS[::-1]))
    assert repr(Vocabulary(TEXTS)) != repr(Vocabulary(TEXTS[:1]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我喜歡這部 film, it's 好!", ["我", "喜", "歡", "這", "部", "film", ",", "it's", "好", "!"]),
        ("とても良いカード", ["と", "て", "も", "良", "い", "カー", "ド"]),
        ("ที่ดี", ["ที่", "ดี"]),
        ("ភាសា", ["ភា", "សា"]),
        ("ດີຫຼາຍ", ["ດີ", "ຫຼ", "າ", "ຍ"]),
        ("좋은 영화", ["좋은", "영화"]),
        ("хороший фильм", ["хороший", "фильм"]),
        ("अच्छी फिल्म", None),
    ],
)
def test_scripts_without_spaces_have_a_token_for_each_character(text, words):
    found = words_of(text)
    assert found == words if words else len(found) >= 2
    assert "".join(found) == text.replace(" ", "").lower()
