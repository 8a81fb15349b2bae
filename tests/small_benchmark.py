"""A small benchmark for tests: two relations that share subjects, a second step from one to the other, both splits."""

from dataclasses import dataclass
from pathlib import Path

from xledit.benchmark import read as benchmark
from xledit.benchmark.read import Choice
from xledit.benchmark.tables import Relation, read_tables
from xledit.records import Audit, FactRecords

BOTH = ("zh", "en")
RELATIONS = """relation,split,tied_to
capital,test,
river,dev,
tongue,test,
"""
PROMPTS = """relation,language,form,hop,template
capital,zh,first,,{subject}的首都是
capital,zh,last,,要问首都是哪座城市，{subject}的是
capital,zh,paraphrase,,去{subject}的首都，要飞往
capital,zh,paraphrase,,国家机关都设在首都，{subject}的首都名叫
capital,zh,paraphrase,,提起{subject}，人们想到的城市是
capital,zh,translated,,{subject}有它的首都在
capital,zh,translated,,那个城市统治{subject}的是
capital,zh,portability,river,流经{subject}首都的河是
capital,en,first,,{subject} has its capital in
capital,en,last,,The capital city of {subject} is
capital,en,paraphrase,,Leaders of {subject} sit in
capital,en,paraphrase,,The seat of government that belongs to {subject} is called
capital,en,paraphrase,,"To see the parliament of {subject}, travel to"
capital,en,portability,river,The river that flows through the capital of {subject} is the
tongue,zh,first,,{subject}的官方语言是
tongue,zh,last,,要问说哪种语言，{subject}说
tongue,zh,paraphrase,,在{subject}旅行，最好会说
tongue,zh,paraphrase,,课本里写着，{subject}使用
tongue,zh,paraphrase,,报纸和电视在{subject}都用
tongue,en,first,,{subject} has an official language called
tongue,en,last,,The official language of {subject} is
tongue,en,paraphrase,,People who travel through {subject} had better speak
tongue,en,paraphrase,,Newspapers printed across {subject} use
tongue,en,paraphrase,,Schoolbooks say that children of {subject} learn to write
river,zh,first,,{subject}位于一条河边，河名是
river,zh,last,,要问在哪条河边，{subject}在
river,zh,paraphrase,,穿过{subject}的河叫
river,zh,paraphrase,,船夫沿河来到{subject}，那条河是
river,zh,paraphrase,,地图上，{subject}旁边的蓝线是
river,en,first,,{subject} lies on the
river,en,last,,The river that flows through {subject} is the
river,en,paraphrase,,Boats reach {subject} by the
river,en,paraphrase,,Bridges all over {subject} cross the
river,en,paraphrase,,A map shows how close {subject} is to the
"""
HEADER = (
    "id,domain,scope,subject_zh,subject_en,object_zh,object_en,"
    "subject_aliases_zh,subject_aliases_en,object_aliases_zh,object_aliases_en,note\n"
)
CAPITAL = (
    HEADER
    + """capital-001,provinces_cities,china,法国,France,巴黎,Paris,法兰西,French Republic|Gaul,花都,City of Light,
capital-002,provinces_cities,china,埃及,Egypt,开罗,Cairo,,,,Al-Qahirah,
capital-003,provinces_cities,china,日本,Japan,东京,Tokyo,东瀛,Nippon,,,a note
capital-004,provinces_cities,world,秘鲁,Peru,利马,Lima,,,,,
"""
)
TONGUE = (
    HEADER
    + """tongue-001,education,china,法国,France,法语,French,,,,,
tongue-002,education,china,埃及,Egypt,阿拉伯语,Arabic,,,,,
tongue-003,education,china,约旦,Jordan,阿拉伯语,Arabic,,,,,
tongue-004,education,china,巴西,Brazil,葡语,Portuguese,,,,,
"""
).replace("\ntongue-001,education,china,法国,France,法语,French", "\ntongue-001,education,china,法国,France,拉丁语,Latin")
RIVER = (
    HEADER
    + """river-001,mountains_rivers,china,巴黎,Paris,塞纳河,Seine,,,,,
river-002,mountains_rivers,china,开罗,Cairo,尼罗河,Nile,,,,,
river-003,mountains_rivers,china,东京,Tokyo,隅田川,Sumida,,,,,
"""
)
TEXTS = {
    "relations.csv": RELATIONS,
    "prompts.csv": PROMPTS,
    "facts/capital.csv": CAPITAL,
    "facts/tongue.csv": TONGUE,
    "facts/river.csv": RIVER,
}
PROBES = dict.fromkeys(("paraphrase", "alias", "translated", "portability", "locality", "near", "far"), 9)


@dataclass(frozen=True)
class SmallBenchmark:
    """The small benchmark in a folder, to be damaged."""

    folder: Path

    def write(self, name: str, content: str | bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def change(self, name: str, old: str, new: str) -> None:
        """Replace what stands once in a table."""
        assert TEXTS[name].count(old) == 1, (name, old)
        self.write(name, TEXTS[name].replace(old, new))

    def tables(self) -> list[Relation]:
        return read_tables(self.folder, BOTH)

    def read(self, *, num_facts: int = 2, skip_facts: int = 0, seed: int = 17, **changes: object) -> tuple[list[FactRecords], Audit]:
        return read(self.folder, num_facts=num_facts, skip_facts=skip_facts, seed=seed, **changes)


def small_benchmark(folder: Path) -> SmallBenchmark:
    found = SmallBenchmark(folder)
    for name, text in TEXTS.items():
        found.write(name, text)
    return found


def read(folder: Path, *, num_facts: int = 2, skip_facts: int = 0, seed: int = 17, **changes: object) -> tuple[list[FactRecords], Audit]:
    """Read a benchmark, with settings other than the usual ones where given."""
    settings = {"split": "test", "order": "first", "world_knowledge": False, "probes": PROBES} | changes
    return benchmark.read(folder, BOTH, Choice(**settings), num_facts=num_facts, skip_facts=skip_facts, seed=seed)  # pyright: ignore[reportArgumentType]
