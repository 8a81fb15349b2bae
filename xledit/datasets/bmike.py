"""BMIKE-53 (Nie et al., arXiv 2406.17764): ZsRE, CounterFact and WikiFactDiff as questions in 53 languages.

Folders ``data/BMIKE53/zsRE``, ``CounterFact`` and ``WikiFactDiff`` of github.com/ercong21/MultiKnow (MIT), read one
at a time: a file per language, ``zsre_test_{code}.json``, ``counterfact_test_{code}.json``, ``wfd_test_{code}.json``
(``wikifactdiff_test_`` in the README). Rows are ``{"en": {...}, code: {...}}``, each with case_id, subject, src,
rephrase, alt, loc, loc_ans, port, port_ans, and in CounterFact and WikiFactDiff old, the true answer; ZsRE has none.
Seen in rows of the en, ja and zh files (the en file holds German, too); a row may lack the language (icl.py skips it)
and may have an empty loc_ans. Not seen: whether each of the 53 files spells its key as its name does, and the copy on
the HF hub (nielklug/bmike).
"""

from xledit.datasets.questions import Layout

LAYOUT = Layout(
    source="BMIKE-53, arXiv 2406.17764, github.com/ercong21/MultiKnow", pattern="*_test_{code}.json", alone="en", prefix="bmike-"
)
read = LAYOUT.read
