"""Words and sentences of a text.

Known caveats: Han characters and kana count as one word each, as word processors do; Thai, Lao, Khmer and Burmese, which put no
space between words, would need a dictionary. Abbreviations other than those below may end a sentence too early.
"""

import unicodedata
from collections import Counter
from functools import lru_cache

TOP_WORDS = 10
# Silent reading of non-fiction by adults: words of languages that put spaces between them, and characters of those that don't.
WORDS_PER_MINUTE = 238
IDEOGRAPHS_PER_MINUTE = 500
# Between two letters or digits these belong to the word: don't, l’été, co-op, e.g, 3.14; commas only between digits: 1,000.
JOINERS = frozenset("'’-‐‑·.")
NUMBER_JOINERS = frozenset(",٫٬")
# Unicode's Sentence_Terminal of scripts in wide use: these end a sentence wherever they stand, the full stop only before a space.
TERMINATORS = frozenset("!?‼⁇⁈⁉…؟۔։।॥።፧၊။។៕‽。．！？｡")
CLOSERS = frozenset("\"'”’»›)]}」』】）］〉》")
ABBREVIATIONS = frozenset("dr mr mrs ms prof st vs etc e.g i.e z.b bzw usw ca cf no nr sr sra approx".split())


def measure(text):
    # Letters with marks may be written as one character or as two; both must count as the same word.
    text = unicodedata.normalize("NFC", text)
    tokens = list(words(text))
    ideographs = sum(1 for word in tokens if len(word) == 1 and kind_of(word) == "ideograph")
    counted = Counter()
    shown = {}
    for word in tokens:
        # GRÖSSE and Größe are one word; it is shown as it came first.
        folded = word.casefold().replace("’", "'")
        counted[folded] += 1
        shown.setdefault(folded, word.lower())
    top = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:TOP_WORDS]
    minutes = (len(tokens) - ideographs) / WORDS_PER_MINUTE + ideographs / IDEOGRAPHS_PER_MINUTE
    return {
        "words": len(tokens),
        "distinctWords": len(counted),
        "sentences": count_sentences(text),
        "topWords": [{"word": shown[word], "count": count} for word, count in top],
        "readingTimeSeconds": round(minutes * 60),
    }


def words(text):
    start = None
    for at, character in enumerate(text):
        kind = kind_of(character)
        if kind == "letter" or (start is not None and (kind == "mark" or joins(text, at))):
            start = at if start is None else start
            continue
        if start is not None:
            yield text[start:at]
            start = None
        if kind == "ideograph":
            yield character
    if start is not None:
        yield text[start:]


def joins(text, at):
    """Whether a character inside a word holds its two sides together."""
    if at + 1 >= len(text):
        return False
    before, character, after = text[at - 1], text[at], text[at + 1]
    if character in JOINERS:
        return kind_of(before) in ("letter", "mark") and kind_of(after) == "letter"
    return character in NUMBER_JOINERS and before.isdigit() and after.isdigit()


@lru_cache(maxsize=4096)
def kind_of(character):
    """`letter` (digits too), `mark` (belongs to what stands before), `ideograph` (a word of its own) or `other`."""
    category = unicodedata.category(character)
    if category[0] == "M" or character in "\u200c\u200d":
        return "mark"
    if category[0] not in "LN":
        return "other"
    name = unicodedata.name(character, "")
    return "ideograph" if name.startswith(("CJK", "HIRAGANA", "KATAKANA")) else "letter"


def count_sentences(text):
    """Runs of words that a terminator, a blank line or the end of the text closes."""
    count = 0
    open_sentence = False
    for at, character in enumerate(text):
        if kind_of(character) in ("letter", "ideograph"):
            open_sentence = True
        elif open_sentence and ends_sentence(text, at):
            count += 1
            open_sentence = False
    return count + open_sentence


def ends_sentence(text, at):
    character = text[at]
    if character == "\n":
        return not text[at + 1 : at + 80].partition("\n")[0].strip()
    if character != "." and character not in TERMINATORS:
        return False
    after = at + 1
    while after < len(text) and (text[after] in CLOSERS or text[after] == "."):
        after += 1
    goes_on = next_letter(text, after).islower()
    if character in TERMINATORS:
        # “Stop!” she said.
        return not (goes_on and text[after - 1] in CLOSERS)
    at_space = after == len(text) or text[after].isspace()
    return at_space and not goes_on and not is_abbreviation(text, at)


def is_abbreviation(text, at):
    start = at
    while start > 0 and (text[start - 1].isalpha() or text[start - 1] == "."):
        start -= 1
    word = text[start:at].casefold()
    # A single capital is an initial: J. S. Bach.
    return at + 1 < len(text) and (word in ABBREVIATIONS or (at - start == 1 and text[start].isupper()))


def next_letter(text, at):
    for character in text[at : at + 80]:
        if character.isalnum():
            return character
    return ""
