"""Secrets become typed placeholders before anything is stored; an independent scan looks again afterwards.

`Redactor` is the one entry. Rules are files in `rules/`, never code. The gate's second scanner is `independent_scan`.
"""

from toolcall_pipeline.redaction.options import RedactionOptions, load_options
from toolcall_pipeline.redaction.placeholders import PLACEHOLDER, count_placeholders
from toolcall_pipeline.redaction.redactor import Redactor

__all__ = ["PLACEHOLDER", "RedactionOptions", "Redactor", "count_placeholders", "load_options"]
