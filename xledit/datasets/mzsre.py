"""MzsRE (ReMaKE: Wang, Haddow and Birch, arXiv 2312.13040): Bi-ZsRE's test questions, fewer per subject, in 12 languages.

Folder ``data/MzsRE`` of github.com/weixuan-wang123/ReMaKE: one file ``mzsre_test_duplicate_{a}{b}.json`` per pair of
languages, rows as in Bi-ZsRE with the two codes as keys. Those with English are read and joined by row (seen: the
first rows of enzh, later and the last rows of encz, endu and enzh, the same facts). The codes are en, cz (Czech), de,
du (Dutch), es, fr, pt, ru, th, tr, vi, zh; ``cs`` and ``nl`` are understood, too. There is no true answer. The later
files for other languages in ``data/MzsRE`` of github.com/ercong21/MultiKnow have such names, too; of them the list
was seen, not a row.
"""

from xledit.datasets.questions import Layout

LAYOUT = Layout(
    source="MzsRE, arXiv 2312.13040, github.com/weixuan-wang123/ReMaKE",
    pattern="mzsre_test_duplicate_en{code}.json",
    alone="zh",
    aliases={"cs": "cz", "nl": "du"},
)
read = LAYOUT.read
