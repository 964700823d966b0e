"""From a merged Hugging Face folder to a quantised GGUF that is proven to be the same model; nothing here trains."""
