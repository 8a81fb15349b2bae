"""Names of invented persons: spelt the same in all languages, or in each language's own letters. No name is a real person's.

A name is one word of two syllables, of 30 syllables that every script here spells unlike each other. So two persons never have one
name in any script, and languages of one script spell a name the same. Short words, so that a tokenizer can make each one token: with names
of several tokens nothing crossed in models of this size (docs/tranyu.md).
"""

import itertools
import random

CONSONANTS, VOWELS = "kstnmrbhdy", "aiu"
# a consonant, then a vowel or its sign, in the order of CONSONANTS and VOWELS
LETTERS = {
    "Arab": ("كستنمربهدي", "ايو"),
    "Beng": ("কসতনমরবহদয", "ািু"),
    "Cyrl": ("кстнмрбхдй", "аиу"),
    "Deva": ("कसतनमरबहदय", "ािु"),
    "Grek": ("κστνμρβχδι", "αιυ"),
    "Hebr": ("קסטנמרבהדי", "איו"),
    "Khmr": ("កសតនមរបហដយ", "ាិុ"),
    "Laoo": ("ກສຕນມຣບຫດຢ", "າິຸ"),
    "Latn": (CONSONANTS, VOWELS),
    "Mymr": ("ကသတနမရဘဟဒယ", "ာို"),
    "Taml": ("கஸதநமரபஹடய", "ாிு"),
    "Thai": ("กสตนมรบหดย", "าิุ"),
}
# whole syllables
SYLLABLES = {
    "Hans": "卡基库萨西苏塔蒂图纳尼努马米穆拉里鲁巴比布哈希胡达迪杜亚伊尤",
    "Jpan": "カキクサシスタチツナニヌマミムラリルバビブハヒフダヂヅヤイユ",
    "Kore": "카키쿠사시수타티투나니누마미무라리루바비부하히후다디두야이유",
} | {script: [consonant + vowel for consonant in first for vowel in second] for script, (first, second) in LETTERS.items()}
Name = tuple[int, ...]
# all that there are
NAMES = (len(CONSONANTS) * len(VOWELS)) ** 2


def names(seed: str, number: int) -> list[Name]:
    """Return so many different names, each the places of its syllables in ``SYLLABLES``; a larger number begins with the same ones."""
    syllables = range(len(CONSONANTS) * len(VOWELS))
    return random.Random(f"{seed}/names").sample(list(itertools.product(syllables, repeat=2)), NAMES)[:number]


def spell(name: Name, script: str) -> str:
    """Return the name in a script (ISO 15924)."""
    return "".join(SYLLABLES[script][place] for place in name).capitalize()
