"""The canned generator with reasoning, logprobs and choices, as an engine would have them."""

from tests.generators.canned.test_canned import asks, canned, make


def test_rows_have_reasoning_and_logprobs_and_some_thinking_has_no_end() -> None:
    generator = canned("distill", reasoning=True, logprobs=True, bad=0.6, num_words=40)
    rows = make(generator, asks(200)).to_pylist()
    assert make(generator, asks(200)).to_pylist() == rows
    reasons = {row["reject"] for row in rows}
    assert reasons == {None, "generator:unfinished_reasoning"}
    assert {row["finish"] for row in rows} == {"stop", "length", "reasoning"}
    for row in rows:
        assert row["reasoning"] and 0 < row["tokens_reasoning"] <= row["tokens_out"]
        if row["reject"] is None:
            assert row["logprob_min"] < row["logprob_mean"] <= 0 <= row["entropy"]
    plain = make(canned("distill", bad=0.6, num_words=40), asks(200))
    assert "reasoning" not in plain.schema.names and plain.column("text").null_count == 0


def test_a_choice_is_answered_with_one_of_its_texts() -> None:
    texts = make(canned(choice=["yes", "no"]), asks(40)).column("text").to_pylist()
    assert set(texts) == {"yes", "no"}
