"""What a dataset card says of a format: what its columns hold, and how trainers load them without a script."""

from gristmill.jobs.release.formats import ALPACA, BREAK, MESSAGES, PREFERENCE, PROMPT_COMPLETION, SYSTEM, TEXT, Form

WHAT = {
    MESSAGES: "`messages` is a list of `role` (system, user, assistant) and `content`, as chat templates take it.",
    ALPACA: "`instruction`, `input` (often empty) and `output` are plain strings.",
    PREFERENCE: "`prompt`, `chosen` and `rejected` are lists of messages (`role`, `content`); the prompt is explicit, "
    "and `chosen` and `rejected` hold the answer alone.",
    TEXT: "`text` is a plain string, one document a row.",
    PROMPT_COMPLETION: "`prompt` and `completion` are plain strings that are read as one text without a chat template; "
    f"a prompt that ends in no white space bears a blank line ({BREAK!r}). The loss belongs on the completion.",
}
TRAINER = {
    MESSAGES: ("SFTTrainer", ""),
    PREFERENCE: ("DPOTrainer", ""),
    TEXT: ("SFTTrainer", ""),
    PROMPT_COMPLETION: ("SFTTrainer", "  # the loss is on the completion alone"),
}
AXOLOTL = {
    MESSAGES: "    type: chat_template",
    ALPACA: "    type: {alpaca}",
    PREFERENCE: "    type: chat_template.default\n    field_messages: prompt",
    TEXT: "    type: completion",
    PROMPT_COMPLETION: "    type:\n      field_instruction: prompt\n      field_output: completion\n"
    '      format: "{instruction}"\n      no_input_format: "{instruction}"',
}
NANOTRON = """nanotron:

```yaml
data_stages:
- data:
    dataset:
      hf_dataset_or_datasets: FOLDER
      hf_dataset_splits: train
      text_column_name: text
```
"""


def format_section(form: Form) -> str:
    """Markdown: the format and snippets. FOLDER stands for where the release lies, a local folder or a repository."""
    name = form.name
    alpaca = "alpaca_w_system" if SYSTEM in form.schema.names else "alpaca"
    axolotl = AXOLOTL[name].replace("{alpaca}", alpaca)
    source = ", ".join(f"`{column}`" for column in form.reads)
    parts = [
        f"## Format: {name}\n\n{WHAT[name]} Made of the columns {source}. Beside them stands the `id` of each row, by "
        "which the rest of it (provenance, findings, every intermediate turn) is found in the run that made it, and "
        "nothing else: trainers take odd columns amiss. FOLDER below is where these files lie.\n"
    ]
    if name in TRAINER:
        trainer, remark = TRAINER[name]
        parts.append(
            "TRL:\n\n```python\nfrom datasets import load_dataset\n"
            f"from trl import {trainer}\n\n"
            'rows = load_dataset("FOLDER", split="train")\n'
            f'trainer = {trainer}("MODEL", train_dataset=rows){remark}\n```\n'
        )
    else:
        parts.append("TRL has no trainer for these columns: pack as messages or prompt-completion for it.\n")
    head = "rl: dpo\n" if name == PREFERENCE else ""
    parts.append(f"Axolotl:\n\n```yaml\n{head}datasets:\n  - path: FOLDER\n    split: train\n{axolotl}\n```\n")
    if name == TEXT:
        parts.append(NANOTRON)
    if name == PROMPT_COMPLETION:
        parts.append("nanotron's fine-tuning takes the same columns.\n")
    return "\n".join(parts)
