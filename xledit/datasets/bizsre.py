"""Bi-ZsRE (Wang et al., arXiv 2309.08952): ZsRE's test questions with portability, in English and in Chinese.

The file is ``bizsre_test.json`` of github.com/krystalan/Bi_ZsRE (its Google Drive link), alone or in its folder: a
list of rows ``{"en": {...}, "zh": {...}}``, each with subject, src, rephrase, alt, loc, loc_ans and portability (New
Question, New Answer); seen in the copy of github.com/YukinoshitaKaren/X_KDE, eval/data, and read so by the authors'
run_bizsre.py. There is no true answer and no id, and the English locality question begins with "nq question: ". Not
read: the training and dev files, whose Chinese versions (``*_chinese.json``) were not at hand.
"""

from xledit.datasets.questions import Layout

LAYOUT = Layout(source="Bi-ZsRE, arXiv 2309.08952, github.com/krystalan/Bi_ZsRE", pattern="bizsre_test.json", alone="zh")
read = LAYOUT.read
