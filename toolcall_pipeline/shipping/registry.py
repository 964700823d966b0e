"""The registry of models in production: reading the pointer (moving it comes with the commands of shipping)."""

from toolcall_pipeline.gates.production import ProductionModel, current_production

__all__ = ["ProductionModel", "current_production"]
