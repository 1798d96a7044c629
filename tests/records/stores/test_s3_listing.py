"""The objects of a page of a listing, however a server writes them."""

import pytest

from gristmill.records.stores.s3_listing import OBJECTS, take_objects

HEAD = '<?xml version="1.0" encoding="UTF-8"?>'
SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ITEM = "<Contents><Key>kept/a</Key><ETag>&quot;12&quot;</ETag><Size>7</Size></Contents>"
NO_TAG = "<Contents><Key>kept/a</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>7</Size></Contents>"
TIME = "2026-01-02 03:04:05+00:00"


def taken(body: str, status: int = 200) -> tuple[list | None, str]:
    answer, parsed = {"body": body.encode(), "status_code": status}, {}
    take_objects(answer, parsed)
    page = parsed.get(OBJECTS)
    objects = None if page is None else list(zip(page.keys, page.sizes, page.tags, strict=True))
    return objects, answer["body"].decode()


@pytest.mark.parametrize(
    ("items", "objects"),
    [
        (ITEM, [("kept/a", 7, '"12"')]),
        (ITEM + ITEM.replace("kept/a", "kept/b &amp; c"), [("kept/a", 7, '"12"'), ("kept/b & c", 7, '"12"')]),
        (ITEM.replace("kept/a", "<![CDATA[kept/<a>]]>"), [("kept/<a>", 7, '"12"')]),
        (ITEM.replace("<Contents>", "<Contents >"), [("kept/a", 7, '"12"')]),
        (ITEM.replace("<Size>7</Size>", "<Owner><ID>x</ID></Owner><Size>7</Size>"), [("kept/a", 7, '"12"')]),
        (NO_TAG, [("kept/a", 7, TIME)]),
        (NO_TAG + ITEM, [("kept/a", 7, TIME), ("kept/a", 7, '"12"')]),
        ("", []),
    ],
)
@pytest.mark.parametrize("space", [SPACE, ""])
def test_objects_are_read_however_they_are_written(items: str, objects: list, space: str) -> None:
    page = f"{HEAD}<ListBucketResult{space}><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
    assert taken(page)[0] == objects


def test_prefixed_tags_are_read() -> None:
    items = ITEM.replace("<", "<s:").replace("<s:/", "</s:")
    page = f'{HEAD}<s:ListBucketResult xmlns:s="http://s3.amazonaws.com/doc/2006-03-01/">{items}</s:ListBucketResult>'
    assert taken(page)[0] == [("kept/a", 7, '"12"')]


def test_names_in_percent_code_are_decoded() -> None:
    page = f"{HEAD}<ListBucketResult{SPACE}>{ITEM.replace('kept/a', 'kept/a%2Bb+c')}<EncodingType>url</EncodingType>"
    assert taken(page + "</ListBucketResult>")[0] == [("kept/a+b c", 7, '"12"')]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (f"{HEAD}<ListBucketResult{SPACE}>{ITEM}", 200),
        (f"{HEAD}<ListBucketResult{SPACE}>{ITEM[:-20]}", 200),
        ("<Error><Code>SlowDown</Code></Error>", 200),
        ("<Error><Code>SlowDown</Code></Error>", 503),
        ("", 200),
        ("\xff no xml", 200),
    ],
)
def test_what_is_no_whole_listing_is_left_to_botocore(body: str, status: int) -> None:
    assert taken(body, status) == (None, body)
