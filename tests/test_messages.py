"""Messages of Django as text: the same on every day, and of nobody."""

import re
import time
from datetime import datetime

import babel.messages.catalog
import pytest

from xledit.training import messages
from xledit.training.catalog import NATURAL


@pytest.mark.parametrize("code", ["zh", "en", "ru", "ky"])
def test_the_clock_is_not_in_the_text(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """babel dates a catalogue that it reads: its header would carry the minute into the corpus."""
    today = list(messages.documents(code))

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2031, 5, 17, 23, 59, tzinfo=tz)

    monkeypatch.setattr(babel.messages.catalog.datetime, "datetime", Later)
    monkeypatch.setattr(time, "time", lambda: 1.9e9)
    assert list(messages.documents(code)) == today != []


@pytest.mark.parametrize("code", NATURAL)
def test_no_header_of_a_catalogue_and_no_translator_is_in_the_text(code: str) -> None:
    text = "\n".join(document["text"] for document in messages.documents(code))
    assert not re.search("POT-Creation-Date|PO-Revision-Date|Last-Translator|Language-Team|Content-Transfer-Encoding", text)
