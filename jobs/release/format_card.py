"""The section of a dataset card on its format: the columns, and how trainers load them without a script."""

import pyarrow as pa

from gristmill.jobs.release.formats import ALPACA, KWARGS, MESSAGES, PREFERENCE, PROMPT_COMPLETION, TEXT, RowFormat
from gristmill.jobs.release.markdown import code
from gristmill.jobs.release.row_shapes import BREAK, SYSTEM, TOOLS

MESSAGE = "`role`, `content` and the other fields that the messages of the source have"
COLUMNS = {
    MESSAGES: f"`messages` is a list of messages ({MESSAGE}), the input of chat templates.",
    ALPACA: "`instruction`, `input` (often empty) and `output` are plain strings.",
    PREFERENCE: f"`prompt`, `chosen` and `rejected` are lists of messages ({MESSAGE}). The prompt is explicit: "
    "`chosen` and `rejected` hold the answer alone.",
    TEXT: "`text` is a plain string, one document per row.",
    PROMPT_COMPLETION: "`prompt` and `completion` are plain strings that form one text without a chat template. "
    f"A prompt without trailing white space ends in a blank line ({BREAK!r}). Compute the loss on the completion.",
}
DIALOGUE_COMPLETION = (
    f"`prompt` and `completion` are lists of messages ({MESSAGE}). Compute the loss on the completion."
)
BESIDE = {
    TOOLS: "`tools` is the list of tools that a chat template shows to the model.",
    KWARGS: "`chat_template_kwargs` are settings of the chat template.",
    "images": "`images` are the images of the messages, in their order.",
    "image": "`image` is the image of the messages.",
}
JSON_NOTE = "JSON values load as objects with `datasets` 4.7 or later; other readers see JSON texts."
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


def format_section(row_format: RowFormat) -> str:
    """The format and snippets for trainers, as Markdown. FOLDER stands for the folder or repository of the release."""
    name = row_format.name
    alpaca = "alpaca_w_system" if SYSTEM in row_format.schema.names else "alpaca"
    axolotl = AXOLOTL[name].replace("{alpaca}", alpaca)
    source = ", ".join(map(code, row_format.reads))
    is_dialogue = name == PROMPT_COMPLETION and row_format.schema.field("prompt").type != pa.string()
    columns = [DIALOGUE_COMPLETION if is_dialogue else COLUMNS[name]]
    columns += [text for column, text in BESIDE.items() if column in row_format.schema.names]
    columns += [JSON_NOTE] if "arrow.json" in str(row_format.schema.types) else []
    parts = [
        f"## Format: {name}\n\n{' '.join(columns)} Source columns: {source}. The only other column is `id`: it leads "
        "to provenance, findings and intermediate turns of a row in the run that made it. Trainers reject unexpected "
        "columns. FOLDER below stands for the location of these files.\n"
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
        parts.append("TRL has no trainer for these columns: pack as messages or prompt-completion to use TRL.\n")
    head = "rl: dpo\n" if name == PREFERENCE else ""
    if is_dialogue:
        return "\n".join(parts)
    parts.append(f"Axolotl:\n\n```yaml\n{head}datasets:\n  - path: FOLDER\n    split: train\n{axolotl}\n```\n")
    if name == TEXT:
        parts.append(NANOTRON)
    if name == PROMPT_COMPLETION:
        parts.append("nanotron's fine-tuning reads the same columns.\n")
    return "\n".join(parts)
