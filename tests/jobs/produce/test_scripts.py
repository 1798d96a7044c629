"""A corpus as people have them: five scripts, five kinds of compressed file, and a planted benchmark item in each."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import gristmill
from tests.recipes import write

# Of each script: a benchmark item, the same item as a page would quote it, and a text of the same kind that is not it.
TEXTS = {
    "english": (
        'A farmer\'s daughter said "count every sheep twice - then once more" before she closed the wooden gate',
        "A farmer’s daughter said “count every sheep twice — then once more” before she closed the wooden gate",
        "The miller weighed nine sacks of barley in the morning and sold all of them at the market by noon",
    ),
    "chinese": (
        "小明有十二个苹果,他把其中的三分之一送给了妹妹,又买来了五个,请问他现在一共有多少个苹果?",
        "小明有十二个苹果，他把其中的三分之一送给了妹妹，又买来了五个，请问他现在一共有多少个苹果？",
        "昨天夜里下了一场大雪,今天早上村子里的孩子们都跑到河边去堆雪人,直到中午才回家吃饭。",
    ),
    "hindi": (
        "एक किसान के पास बारह गायें थीं और उसने उनमें से पाँच गायें अपने पड़ोसी को बेच दीं तो अब कितनी बचीं",
        "एक किसान के पास बारह गायें थीं, और उसने उनमें से पाँच गायें अपने पड़ोसी को बेच दीं; तो अब कितनी बचीं?",
        "कल शाम गाँव के मेले में बच्चों ने मिठाई खाई और रात होने से पहले सब लोग अपने घर लौट आए थे",
    ),
    "arabic": (
        "كان لدى التاجر عشرون كيسا من القمح فباع سبعة منها في السوق صباحا ثم اشترى ثلاثة أكياس أخرى مساء",
        "«كان لدى التاجر عشرون كيسا من القمح، فباع سبعة منها في السوق صباحا، ثم اشترى ثلاثة أكياس أخرى مساء»",
        "ذهب الأولاد إلى النهر بعد المدرسة وجلسوا تحت الشجرة الكبيرة حتى غربت الشمس خلف التلال البعيدة",
    ),
    "russian": (
        "Поезд вышел из города в семь часов утра и проехал двести километров за три часа до первой большой станции",
        "ПОЕЗД вышел из города в семь часов утра — и проехал двести километров за три часа, до первой большой станции…",
        "Бабушка испекла пирог с яблоками и позвала соседей пить чай на веранде старого дома у самой реки",
    ),
}


def test_each_planted_item_is_found_in_a_mixed_compressed_folder(tmp_path: Path) -> None:
    _write_corpus(tmp_path / "corpus")
    items = "".join(json.dumps({"id": name, "text": item}) + "\n" for name, (item, _, _) in TEXTS.items())
    (tmp_path / "items.jsonl").write_text(items)
    benchmark = {"name": "planted", "path": str(tmp_path / "items.jsonl"), "id_column": "id"}
    recipe = {
        "name": "scripts",
        "lot_size": 4,
        "source": {"path": str(tmp_path / "corpus")},
        "generator": {"kind": "passthrough", "columns": ["text"]},
        "stages": [{"kind": "decontaminate", "benchmarks": [benchmark]}, {"kind": "dedup"}],
    }
    done = gristmill("produce", write(tmp_path / "recipe.toml", recipe), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rejected = _rows(tmp_path / "out" / "rejected")
    assert {(row["overlap_item"], row["reject"]) for row in rejected} == {
        (name, "decontaminate:overlap") for name in TEXTS
    }
    kept = [row["text"] for row in _rows(tmp_path / "out" / "kept")]
    assert sorted(kept) == sorted(plain for _, _, plain in TEXTS.values())
    assert "5 files are read, 2 are not" in done.stderr


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def _write_corpus(folder: Path) -> None:
    rows = {name: [f"{quote} 1", plain] for name, (_, quote, plain) in TEXTS.items()}
    (folder / "zh").mkdir(parents=True)
    (folder / "english.jsonl.gz").write_bytes(gzip.compress(_jsonl(rows["english"])))
    with pa.CompressedOutputStream(str(folder / "zh" / "chinese.jsonl.zst"), "zstd") as file:
        file.write(_jsonl(rows["chinese"]))
    table = io.StringIO()
    csv.writer(table).writerows([["text"], *([text] for text in rows["hindi"])])
    (folder / "hindi.csv.bz2").write_bytes(bz2.compress(table.getvalue().encode()))
    (folder / "arabic.txt.xz").write_bytes(lzma.compress("\n".join(rows["arabic"]).encode()))
    pq.write_table(pa.table({"text": rows["russian"]}), folder / "russian.parquet")
    (folder / "._english.jsonl").write_bytes(b"\x00\x05\x16\x07")
    (folder / "notes.docx").write_bytes(b"PK")


def _jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
