"""Benchmarks in many scripts: an item is found in every form in which it is typed, another text is not."""

import json
import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.records.errors import UserError
from gristmill.records.spec import build
from gristmill.records.words import num_words
from gristmill.stages.decontaminate.ngrams import Decontaminate, DecontaminateSpec
from gristmill.stages.decontaminate.stage import ITEMS

# (an item, another sentence of the language)
ITEMS_OF = {
    "English": (
        'In which year did the river\'s official survey - the "final" one - first find the flooded office floor?',
        "The committee meets on the second Tuesday of each month to discuss budgets, repairs and new members of staff.",
    ),
    "German": (
        "Welche Straße führt über die größte Brücke der Stadt, und wie heißt der Fluss unter ihr seit alter Zeit?",
        "Der Ausschuss trifft sich jeden zweiten Dienstag, um über den Haushalt und neue Mitglieder zu sprechen.",
    ),
    "Vietnamese": (
        "Thành phố nào là thủ đô của Việt Nam và nằm bên bờ sông nào của miền Bắc đất nước?",
        "Ủy ban họp vào thứ ba tuần thứ hai hàng tháng để bàn về ngân sách và các thành viên mới.",
    ),
    "Turkish": (
        "İstanbul Boğazı'nın iki yakasını bağlayan ilk köprü hangi yılda ışıklandırılarak açıldı ve adı nedir?",
        "Kurul her ayın ikinci salı günü bütçeyi, onarımları ve yeni üyeleri görüşmek için toplanır ve karar verir.",
    ),
    "Russian": (
        "В каком году был построен первый мост через эту реку и какой ещё посёлок стоял тогда на её берегу?",
        "Комитет собирается каждый второй вторник месяца, чтобы обсудить бюджет, ремонт и приём новых сотрудников.",
    ),
    "Greek": (
        "Ποιος ποταμός διασχίζει την παλιά πόλη και πώς ονομάζεται η μεγαλύτερη γέφυρά του σήμερα από τους κατοίκους;",
        "Η επιτροπή συνεδριάζει κάθε δεύτερη Τρίτη του μήνα για να συζητήσει τον προϋπολογισμό και τα νέα μέλη.",
    ),
    "Arabic": (
        "في أي عام بُني الجسر الأول على هذا النهر وما اسم القرية التي كانت على ضفته في ذلك الوقت؟",
        "تجتمع اللجنة في الثلاثاء الثاني من كل شهر لمناقشة الميزانية والإصلاحات والأعضاء الجدد في المكتب.",
    ),
    "Hebrew": (
        "באיזו שנה נבנה הגשר הראשון על הנהר הזה ומה היה שמו של הכפר שעמד אז על גדתו?",
        "הוועדה נפגשת ביום שלישי השני בכל חודש כדי לדון בתקציב, בתיקונים ובחברים חדשים במשרד.",
    ),
    "Hindi": (
        "इस नदी पर पहला पुल किस वर्ष में बनाया गया था और उस समय इसके किनारे कौन सा गाँव था?",
        "समिति हर महीने के दूसरे मंगलवार को बजट, मरम्मत और नए सदस्यों पर चर्चा करने के लिए मिलती है।",
    ),
    "Tamil": (
        "இந்த ஆற்றின் மீது முதல் பாலம் எந்த ஆண்டில் கட்டப்பட்டது அப்போது அதன் கரையில் இருந்த கிராமத்தின் பெயர் என்ன?",
        "ஒவ்வொரு மாதமும் இரண்டாவது செவ்வாய்க்கிழமை குழு கூடி வரவு செலவு மற்றும் புதிய உறுப்பினர்கள் பற்றி பேசுகிறது.",
    ),
    "Amharic": (
        "በዚህ ወንዝ ላይ የመጀመሪያው ድልድይ በየትኛው ዓመት ተሠራ በዚያን ጊዜ በዳርቻው የነበረው መንደር ስም ማን ነበር?",
        "ኮሚቴው በየወሩ ሁለተኛ ማክሰኞ ስለ በጀት ስለ ጥገና እና ስለ አዲስ አባላት ለመወያየት ይሰበሰባል።",
    ),
    "Korean": (
        "이 강을 가로지르는 첫 번째 다리는 몇 년에 지어졌으며 그때 강가에 있던 마을의 이름은 무엇인가?",
        "위원회는 매달 둘째 화요일에 모여 예산과 수리와 새로운 직원에 대하여 오랫동안 의논하고 결정한다.",
    ),
    "Chinese": (
        "跨越这条河流的第一座大桥建于哪一年，当时河岸上的村庄叫什么名字？",
        "委员会在每个月的第二个星期二开会，讨论预算、维修以及新成员的问题。",
    ),
    "Japanese": (
        "この川に架けられた最初の橋は何年に造られ、当時その岸辺にあった村の名前は何ですか？",
        "委員会は毎月第二火曜日に集まり、予算や修理、そして新しいメンバーについて話し合います。",
    ),
    "Thai": (
        "สะพานแห่งแรกที่ข้ามแม่น้ำสายนี้สร้างขึ้นในปีใด และหมู่บ้านที่อยู่ริมฝั่งในเวลานั้นมีชื่อว่าอะไร",
        "คณะกรรมการประชุมทุกวันอังคารที่สองของเดือนเพื่อหารือเรื่องงบประมาณ การซ่อมแซม และสมาชิกใหม่",
    ),
    "Khmer": (
        "ស្ពានដំបូងឆ្លងកាត់ទន្លេនេះត្រូវបានសាងសង់នៅឆ្នាំណា ហើយភូមិដែលនៅលើច្រាំងទន្លេនៅពេលនោះមានឈ្មោះអ្វី?",
        "គណៈកម្មាធិការជួបប្រជុំគ្នារៀងរាល់ថ្ងៃអង្គារទីពីរនៃខែដើម្បីពិភាក្សាអំពីថវិកានិងសមាជិកថ្មី។",
    ),
}
FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
TYPOGRAPHIC = {ord("'"): "’", ord('"'): "”", ord("-"): "—", ord(" "): "\u00a0"}
POINTS = {"Arabic": "\u064e", "Hebrew": "\u05b8"}
FORMS: dict[str, Callable[[str, str], str]] = {
    "as it is": lambda text, script: text,
    "composed": lambda text, script: unicodedata.normalize("NFC", text),
    "decomposed": lambda text, script: unicodedata.normalize("NFD", text),
    "upper case": lambda text, script: text.upper(),
    "lower case": lambda text, script: text.lower(),
    "full width": lambda text, script: text.translate(FULL_WIDTH),
    "typographic": lambda text, script: text.translate(TYPOGRAPHIC).replace("fi", "ﬁ").replace("fl", "ﬂ"),
    "hidden signs": lambda text, script: "".join(f"{c}\u00ad" if c.isalpha() else f"\u200b{c}" for c in text),
    "vowel points": lambda text, script: "".join(c + POINTS.get(script, "") if c.isalpha() else c for c in text),
    "new layout": lambda text, script: f"« {text} »\n\n".replace(" ", "\n"),
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Decontaminate:
    file = tmp_path_factory.mktemp("benchmark") / "items.jsonl"
    lines = [json.dumps({"id": script, "text": item}) for script, (item, _) in ITEMS_OF.items()]
    file.write_text("\n".join(lines))
    return opened({"name": "mine", "path": str(file), "id_column": "id"})


def opened(benchmark: dict[str, Any]) -> Decontaminate:
    made = Decontaminate(build(DecontaminateSpec, {"benchmarks": [benchmark]}, "stages[0]"))
    made.check()
    made.open()
    return made


def rows(made: Decontaminate, texts: list[str]) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pydict({"text": pa.array(texts), "reject": pa.nulls(len(texts), pa.string())})
    return made.run(batch).to_pylist()


@pytest.mark.parametrize("script", ITEMS_OF)
def test_an_item_is_found_in_every_form_and_another_text_is_not(stage: Decontaminate, script: str) -> None:
    item, other = ITEMS_OF[script]
    texts = {name: form(item, script) for name, form in FORMS.items()}
    found = rows(stage, [f"{other} {text} {other}" for text in texts.values()])
    for (name, text), row in zip(texts.items(), found):
        assert (row["reject"], row["overlap_item"], row["overlap_share"]) == ("decontaminate:overlap", script, 1.0), (
            name
        )
        stretch = f"{other} {text} {other}"[row["overlap_start"] : row["overlap_end"]]
        assert stretch.strip(" \n«»?？;；؟\u00a0\u200b\u00ad") == text.strip(" \n«»?？;；؟\u00a0\u200b\u00ad"), name
    [none] = rows(stage, [other])
    assert (none["reject"], none["overlap_item"]) == (None, None)


def test_every_script_needs_as_much_text_as_eight_words() -> None:
    assert all(8 <= num_words(item) <= 26 for item, _ in ITEMS_OF.values())


def test_short_items_are_counted_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long, short = ITEMS_OF["Chinese"][0], "中国的首都是哪里？"
    (tmp_path / "mixed.txt").write_text(f"{long}\n{short}\n{short}ab\n")
    (tmp_path / "short.txt").write_text(f"{short}\n{short}\n")
    with caplog.at_level(logging.INFO, "gristmill"):
        made = opened({"name": "geo", "path": str(tmp_path / "mixed.txt")})
    assert "geo: 1 of 3 items is looked for; 2 are shorter than 8 words" in caplog.text
    assert made.identity()[ITEMS] == {"geo": [1, 3]}
    with pytest.raises(UserError, match="none of its 2 items can be looked for; the longest has 5.33 words"):
        opened({"name": "geo", "path": str(tmp_path / "short.txt")})
