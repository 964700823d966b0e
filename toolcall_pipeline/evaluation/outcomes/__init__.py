"""What became of a case, one file per suite; `score` picks the file."""

from toolcall_pipeline.evaluation.outcomes.scoring import SCORING_VERSION, Scored, score

__all__ = ["SCORING_VERSION", "Scored", "score"]
