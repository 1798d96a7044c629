"""Prompt templates: text files in the folder `templates` beside the module that uses them.

What a file says is the prompt, word for word, without the line end that closes the file. Templates are part of a run's
identity (docs/prompts.md), so a new wording makes new rows under a new fingerprint.
"""

from functools import cache
from pathlib import Path

FOLDER = "templates"


@cache
def template_text(module_file: str, name: str) -> str:
    """The template `name` ("code/problem") of the module with this `__file__`. Raises OSError if there is none."""
    return (Path(module_file).with_name(FOLDER) / f"{name}.txt").read_text(encoding="utf-8").removesuffix("\n")


def template_texts(module_file: str, folder: str, *names: str) -> dict[str, str]:
    """The templates `names` of a folder by name, in the order of `names`."""
    return {name: template_text(module_file, f"{folder}/{name}") for name in names}
