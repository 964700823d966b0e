"""Names of the files inside a `v2_chat_dataset` artifact; use these instead of writing a path twice.

`MANIFEST.json` lies in a folder of its own: beside `manifest.json` it would be the same file on a file system that
does not tell capitals from small letters.
"""

TRAIN_CHAT = "train.chat.jsonl"
VALID_CHAT = "valid.chat.jsonl"
TRAIN_TINY = "train.tiny.jsonl"
VALID_TINY = "valid.tiny.jsonl"
TRAIN_PARQUET = "train.parquet"
VALID_PARQUET = "valid.parquet"
ENCODED_TRAIN = "train.encoded.parquet"
ENCODED_VALID = "valid.encoded.parquet"
TOOL_SCHEMAS = "tool_schemas.json"
CARD = "README.md"
SAMPLE_ROWS = "sample_rows.html"
TOOL_HISTOGRAM = "tool_histogram.png"
LENGTH_HISTOGRAM = "length_histogram.png"
DATASET_MANIFEST = "provenance/MANIFEST.json"
SPLITS = "provenance/splits.json"
CHAT_TEMPLATE = "template/chat_template.jinja"
TRAINING_TEMPLATE = "template/training_template.jinja"
TEMPLATE_SETTINGS = "template/settings.json"
TOKENIZER = "template/tokenizer.json"
PARITY_CASES = "template/parity_cases.jsonl"
SUITE_PROMPTS = "provenance/suite_prompts.json"
