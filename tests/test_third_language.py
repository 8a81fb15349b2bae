"""A third language is data: Japanese goes through the whole pipeline beside the other two, with a row, columns, a text and no new code."""

from pathlib import Path

import pytest

from tests.conftest import TINY, environment, new_project, read_json, remove_results, set_params
from tests.tiny import save_tiny

JAPANESE = """京都は千年以上にわたって都が置かれた古い町で、寺や神社が多く残っている。
富士山は日本で最も高い山で、晴れた日には遠くからもその姿が見える。
そばは、そばの実をひいた粉から作る細い麺で、温かいつゆでも冷たいつゆでも食べる。
俳句は五、七、五の十七音からなる短い詩で、季節を表す言葉を入れる決まりがある。
"""
HELD_OUT = """朝の市場には、とれたばかりの魚や野菜を売る人の声がひびいている。
図書館の窓からは、川に沿って続く桜の並木が見える。
"""


@pytest.mark.slow
def test_japanese_goes_through_the_whole_pipeline(tmp_path: Path) -> None:
    root, model = tmp_path / "project", save_tiny(tmp_path / "model")
    project = new_project(root, environment(tmp_path))
    remove_results(root)
    (root / "data/corpus/ja.txt").write_text(JAPANESE, encoding="utf-8")
    (root / "data/heldout/ja.txt").write_text(HELD_OUT, encoding="utf-8")
    changes = {
        "model.name": str(model),
        "model.files": str(model),
        "grid.languages": ["zh", "en", "ja"],
        "grid.edits": ["zh", "ja", "mixed"],
        "grid.methods": ["memit"],
        "grid.direct": [],
        "covariance.corpus": {"zh": "data/corpus/zh.txt", "en": "data/corpus/en.txt", "ja": "data/corpus/ja.txt"},
        "watch.text": {"zh": "data/heldout/zh.txt", "en": "data/heldout/en.txt", "ja": "data/heldout/ja.txt"},
        "data.split": "dev",
    }
    set_params(root, TINY | changes)
    project.dvc("repro")
    summary = read_json(root / "reports/cells/memit-zh.json")
    assert list(summary["metrics"]) == ["en", "ja", "zh"]
    assert list(summary["transfer"]) == ["en", "ja"]
    assert summary["num_facts"] == TINY["edit.num_facts"]
    assert [list(check["text_nats"]) for check in summary["checks"]] == [["en", "ja", "zh"]] * 2
    requests = read_json(root / "artifacts/requests/ja.json")
    assert {request["fact_id"].rpartition("-")[0] for request in requests} == {"landmark_city"}  # type: ignore[index]
    pairs = read_json(root / "reports/geometry/memit.json")[0]["pairs"]  # type: ignore[index]
    # the mixed update is of three languages, so it says nothing of the sum of two
    assert {name: pair["additivity_error"] for name, pair in pairs.items() if name.startswith("run")} == {
        "run: zh and ja, same facts": None
    }
    page = (root / "reports/index.html").read_text(encoding="utf-8")
    assert "Edited in Japanese" in page
    assert 'lang="ja-Jpan"' in page
