"""Every error this project raises on purpose.

    ToolcallPipelineError
    ├── UsageError                 the caller asked for something that cannot be (exit code 2)
    │   ├── PartitionKeyError      not a `20261123T020000Z-label`
    │   └── ConfigurationError     a setting, preset or recipe that does not fit
    ├── GateHeldError              a gate on an upstream artifact did not pass (exit code 1)
    ├── ReportTemplateError        a report template is missing (exit code 4)
    ├── InvalidResultsError        results do not conform to the published schema (exit code 5)
    ├── MissingInputError          a file or artifact that should be there is not (exit code 6)
    ├── RunInProgressError         another run of the same partition is going on
    ├── ArtifactError              an artifact is damaged, incomplete, or would be overwritten
    ├── StoreError                 PostgreSQL is not there, is locked, or refused
    ├── RedactionError             a scanner failed; nothing unredacted may pass
    ├── DatasetError               rows, schemas, masks or templates that do not hold together
    ├── TrainingError              training cannot start or had to stop
    ├── ExportError                conversion or quantisation failed
    └── EvaluationError            a backend, a suite or the sandbox failed

A message says what happened, where (file, line, record), what was expected, what was found, and what to do.
"""

__all__ = [
    "ArtifactError",
    "ConfigurationError",
    "DatasetError",
    "EvaluationError",
    "ExportError",
    "GateHeldError",
    "InvalidResultsError",
    "MissingInputError",
    "PartitionKeyError",
    "RedactionError",
    "ReportTemplateError",
    "RunInProgressError",
    "StoreError",
    "ToolcallPipelineError",
    "TrainingError",
    "UsageError",
]


class ToolcallPipelineError(Exception):
    """Base of every error raised on purpose; the command line exits 3 unless a subclass says otherwise."""

    exit_code = 3


class UsageError(ToolcallPipelineError):
    """The caller asked for something that cannot be."""

    exit_code = 2


class PartitionKeyError(UsageError):
    """A partition key that is not a UTC time with an optional label."""


class ConfigurationError(UsageError):
    """A setting, preset or recipe that does not fit."""


class GateHeldError(ToolcallPipelineError):
    """A gate on an upstream artifact is missing, failed, inconclusive, or about other bytes or another rule."""

    exit_code = 1


class ReportTemplateError(ToolcallPipelineError):
    """A report template is missing."""

    exit_code = 4


class InvalidResultsError(ToolcallPipelineError):
    """Results that do not conform to the published schema."""

    exit_code = 5


class MissingInputError(ToolcallPipelineError):
    """A file or artifact that should be there is not."""

    exit_code = 6


class RunInProgressError(ToolcallPipelineError):
    """Another run of the same partition is going on; two would write the same rows and folders."""


class ArtifactError(ToolcallPipelineError):
    """An artifact is damaged, incomplete, or would be overwritten."""


class StoreError(ToolcallPipelineError):
    """PostgreSQL is not there, is locked by another writer, or refused."""


class RedactionError(ToolcallPipelineError):
    """A scanner failed; nothing unredacted may pass."""


class DatasetError(ToolcallPipelineError):
    """Rows, schemas, masks or templates that do not hold together."""


class TrainingError(ToolcallPipelineError):
    """Training cannot start or had to stop."""


class ExportError(ToolcallPipelineError):
    """Conversion or quantisation failed."""


class EvaluationError(ToolcallPipelineError):
    """A backend, a suite or the sandbox failed."""
