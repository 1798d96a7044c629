"""Default prompts of a judge, by mode: the rubrics in templates/."""

from gristmill.records.templates import template_text

POINTWISE = template_text(__file__, "pointwise")
PAIRWISE = template_text(__file__, "pairwise")
PAIRWISE_QUESTION = template_text(__file__, "pairwise_question")
STEPS = template_text(__file__, "steps")
STEPS_QUESTION = template_text(__file__, "steps_question")


def default_prompt(mode: str, has_question: bool) -> str:
    """The prompt of a mode; `has_question`: whether the texts answer a question, which the prompt then includes."""
    if mode == "pairwise":
        return PAIRWISE_QUESTION if has_question else PAIRWISE
    if mode == "steps":
        return STEPS_QUESTION if has_question else STEPS
    return POINTWISE
