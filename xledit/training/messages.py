"""Real sentences in most of the languages: the message catalogues that come with Django (BSD), read by babel."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from babel.messages.mofile import read_mo

# what Django calls the catalogues; it has none in Lao and Tagalog, and its English is the messages' own name
CATALOGUES = {"zh": "zh_Hans", "pt": "pt_BR"}
MESSAGES = 20


def documents(code: str) -> Iterator[dict]:
    """Yield documents of some messages each, a message a line; none where Django has no catalogue. Markup and slots stay as they are."""
    root = Path(str(files("django")))
    said = dict[str, None]()  # in the order of the files, each once
    for path in sorted(root.rglob(f"locale/{'de' if code == 'en' else CATALOGUES.get(code, code)}/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            for message in read_mo(file):
                if not message.id:  # the catalogue's header: the minute it was made or read, translators' names and addresses
                    continue
                text = message.id if code == "en" else message.string
                said |= dict.fromkeys(form for form in ([text] if isinstance(text, str) else text or ()) if form)
    lines = list(said)
    for start in range(0, len(lines), MESSAGES):
        yield {"text": "\n".join(lines[start : start + MESSAGES]), "id": f"{code}/django/{start}", "metadata": {}}
