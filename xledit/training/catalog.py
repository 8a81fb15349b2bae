"""The 43 natural and 16 programming languages of the FuxiTranyu corpus (arXiv 2408.06273, figure 1, tables 2 and 3), one row each."""

import difflib

import msgspec

# scripts that put no space between words: ISO 15924
UNSPACED = {"Hans", "Jpan", "Khmr", "Laoo", "Mymr", "Thai"}


class Natural(msgspec.Struct, frozen=True):
    """A natural language.

    ``script`` is the ISO 15924 code of the script it is mostly written in. ``iso3`` is the code whose row in datatrove's
    ``tokenizer_assignment.csv`` is meant for that script. ``share`` is its part of the paper's corpus in per cent, None where
    the paper gives none (30 languages, 11.1 % together). ``cldr`` is CLDR's name for it where that is another.
    """

    code: str
    name: str
    script: str
    family: str
    iso3: str
    share: float | None = None
    cldr: str | None = None

    @property
    def locale(self) -> str:
        """What babel calls the language."""
        return self.cldr or self.code

    @property
    def writing(self) -> str:
        """``spaced`` where spaces separate words, else ``unspaced``."""
        return "unspaced" if self.script in UNSPACED else "spaced"


class Programming(msgspec.Struct, frozen=True):
    """A programming language: ``gigabytes`` of it in the paper's corpus, and what its files end in. Codes are StarCoderData's folders."""

    code: str
    name: str
    gigabytes: float
    suffixes: tuple[str, ...]

    @property
    def writing(self) -> str:
        """``code``, the counterpart of a natural language's ``spaced`` and ``unspaced``."""
        return "code"


NATURAL = {
    row.code: row
    for row in (
        Natural("ar", "Arabic", "Arab", "Afro-Asiatic", "arb", 1.7),
        Natural("bg", "Bulgarian", "Cyrl", "Indo-European", "bul"),
        Natural("bn", "Bengali", "Beng", "Indo-European", "ben"),
        Natural("ca", "Catalan", "Latn", "Indo-European", "cat"),
        Natural("cs", "Czech", "Latn", "Indo-European", "ces"),
        Natural("de", "German", "Latn", "Indo-European", "deu", 8.1),
        Natural("el", "Greek", "Grek", "Indo-European", "ell"),
        Natural("en", "English", "Latn", "Indo-European", "eng", 28.8),
        Natural("es", "Spanish", "Latn", "Indo-European", "spa", 5.7),
        Natural("fa", "Persian", "Arab", "Indo-European", "fas"),
        Natural("fi", "Finnish", "Latn", "Uralic", "fin"),
        Natural("fr", "French", "Latn", "Indo-European", "fra", 7.3),
        Natural("he", "Hebrew", "Hebr", "Afro-Asiatic", "heb"),
        Natural("hi", "Hindi", "Deva", "Indo-European", "hin"),
        Natural("hu", "Hungarian", "Latn", "Uralic", "hun"),
        Natural("id", "Indonesian", "Latn", "Austronesian", "ind"),
        Natural("it", "Italian", "Latn", "Indo-European", "ita", 3.7),
        Natural("ja", "Japanese", "Jpan", "Japonic", "jpn", 1.5),
        Natural("kk", "Kazakh", "Cyrl", "Turkic", "kaz"),
        Natural("km", "Khmer", "Khmr", "Austroasiatic", "khm"),
        Natural("ko", "Korean", "Kore", "Koreanic", "kor"),
        Natural("ku", "Kurdish", "Latn", "Indo-European", "kmr"),
        Natural("ky", "Kyrgyz", "Cyrl", "Turkic", "kir"),
        Natural("lo", "Lao", "Laoo", "Kra-Dai", "lao"),
        Natural("ms", "Malay", "Latn", "Austronesian", "zsm"),
        Natural("my", "Burmese", "Mymr", "Sino-Tibetan", "mya"),
        Natural("nl", "Dutch", "Latn", "Indo-European", "nld", 1.8),
        Natural("pl", "Polish", "Latn", "Indo-European", "pol", 1.8),
        Natural("pt", "Portuguese", "Latn", "Indo-European", "por", 2.2),
        Natural("ro", "Romanian", "Latn", "Indo-European", "ron"),
        Natural("ru", "Russian", "Cyrl", "Indo-European", "rus", 5.5),
        Natural("sv", "Swedish", "Latn", "Indo-European", "swe"),
        Natural("ta", "Tamil", "Taml", "Dravidian", "tam"),
        Natural("tg", "Tajik", "Cyrl", "Indo-European", "tgk"),
        Natural("th", "Thai", "Thai", "Kra-Dai", "tha"),
        Natural("tk", "Turkmen", "Latn", "Turkic", "tuk"),
        Natural("tl", "Tagalog", "Latn", "Austronesian", "fil", cldr="fil"),
        Natural("tr", "Turkish", "Latn", "Turkic", "tur"),
        Natural("uk", "Ukrainian", "Cyrl", "Indo-European", "ukr"),
        Natural("ur", "Urdu", "Arab", "Indo-European", "urd"),
        Natural("uz", "Uzbek", "Latn", "Turkic", "uzn"),
        Natural("vi", "Vietnamese", "Latn", "Austroasiatic", "vie", 1.6),
        Natural("zh", "Chinese", "Hans", "Sino-Tibetan", "cmn", 10.4),
    )
}
PROGRAMMING = {
    row.code: row
    for row in (
        Programming("assembly", "Assembly", 1.6, (".asm", ".s")),
        Programming("c", "C", 53, (".c", ".h")),
        Programming("c-sharp", "C#", 48, (".cs",)),
        Programming("cpp", "C++", 52, (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx")),
        Programming("go", "Go", 26, (".go",)),
        Programming("java", "Java", 96, (".java",)),
        Programming("javascript", "JavaScript", 70, (".js", ".mjs", ".jsx")),
        Programming("lua", "Lua", 3.0, (".lua",)),
        Programming("php", "PHP", 59, (".php",)),
        Programming("python", "Python", 63, (".py",)),
        Programming("ruby", "Ruby", 7.9, (".rb",)),
        Programming("rust", "Rust", 9.1, (".rs",)),
        Programming("scala", "Scala", 5.1, (".scala",)),
        Programming("sql", "SQL", 11, (".sql",)),
        Programming("typescript", "TypeScript", 29, (".ts", ".tsx")),
        Programming("visual-basic", "Visual Basic", 1.5, (".vb", ".bas")),
    )
}


def row(code: str) -> Natural | Programming:
    """Return the row of a natural or programming language. Raises ValueError that lists the codes whose code or name is near."""
    known: dict[str, Natural | Programming] = {**NATURAL, **PROGRAMMING}
    if code in known:
        return known[code]
    spellings = {spelling.lower(): each for each in known.values() for spelling in (each.name, each.code)}
    near = [spellings[match] for match in difflib.get_close_matches(code.lower(), spellings, n=5, cutoff=0.5)]
    hint = f"did you mean {', '.join(f'{each.code} ({each.name})' for each in near)}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"unknown language {code!r}; {hint} All rows are in xledit/training/catalog.py")
