"""What makes rows: vLLM teachers and their methods, and the canned generator for dry runs and tests."""
