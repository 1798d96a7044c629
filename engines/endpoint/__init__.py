"""An engine behind an OpenAI-shaped HTTP interface: a vLLM or SGLang server, a router, a paid API."""
