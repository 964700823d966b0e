"""The base model, LoRA training as a process of its own, and the merge; export to GGUF lives in `export/`."""
