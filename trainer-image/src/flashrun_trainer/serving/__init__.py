"""A server of adapters: vLLM with a resolver of ours, or a small server on transformers."""
